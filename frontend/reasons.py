"""Why is this node updated, or not? One sentence, what follows from it, and the chain that led there."""

from __future__ import annotations

from dataclasses import dataclass

from frontend.node_page import NodePage
from frontend.templatetags.fleet_format import format_bytes, format_time
from updates import causes


@dataclass(frozen=True)
class Reason:
    """`look` names a state of a node update, or `none`."""

    look: str
    sentence: str
    next: str


@dataclass(frozen=True)
class Step:
    look: str
    when: str
    title: str
    detail: str


def why(page: NodePage) -> Reason:
    update, runs = page.update, _runs(page)
    if update is None:
        return _without_campaign(page, runs)
    name = update.campaign.name
    target = str(update.campaign.version or f"the image from before {update.campaign.reverts}")
    cause = causes.sentence(update.cause) if update.cause else ""
    asleep = "The node takes it when it next wakes; a node asleep is not a failure."
    match update.state:
        case "planned":
            return Reason(
                "planned", f"Not updated yet: {_waits_for(page)}.", f"It runs {runs}; {name} brings {target}."
            )
        case "offered":
            return Reason("offered", f"Not updated yet: {target} is offered and the node has not fetched it.", asleep)
        case "transferring":
            got, total = format_bytes(update.received_bytes), format_bytes(update.total_bytes)
            return Reason("transferring", f"Not updated yet: {got} of {total} of {target} have arrived.", asleep)
        case "staged":
            return Reason(
                "staged", f"Not updated yet: {target} is in the standby slot and verified.", f"It still runs {runs}."
            )
        case "trial":
            return Reason(
                "trial",
                f"Not updated yet: the node tries {target} beside the old image.",
                "It switches after the self-test, and goes back by itself if it reaches no server.",
            )
        case "confirmed":
            return Reason("confirmed", f"Updated: the node confirmed that it runs {target}.", f"By {name}.")
        case "rejected":
            return Reason(
                "rejected", f"Not updated: the node rejected {target} and kept what it has.", f"{cause} It runs {runs}."
            )
        case "failed":
            return Reason("failed", f"Not updated: {target} failed on the node.", f"{cause} It runs {runs}.")
        case "reverted":
            return Reason("reverted", f"Not updated: the node went back from {target}.", f"{cause} It runs {runs}.")
        case "silent":
            return Reason(
                "silent",
                f"Not updated: the node was offered {target} and fell silent.",
                f"{cause} A report from it resumes the update by itself.",
            )
        case "skipped":
            fit = " ".join(page.misfit.reasons) if page.misfit else ""
            return Reason(
                "skipped", f"Not updated: {name} left this node out. {cause}", f"{fit} It runs {runs}.".strip()
            )
        case _:
            return Reason("cancelled", f"Not updated: its update in {name} was cancelled.", f"{cause} It runs {runs}.")


def _without_campaign(page: NodePage, runs: str) -> Reason:
    if page.misfit:
        return Reason(
            "rejected",
            f"Not updated: {page.misfit.image.version} does not fit the profile {page.node.profile.name}.",
            " ".join(page.misfit.reasons),
        )
    return Reason(
        "planned",
        "Not updated: no campaign has reached this node yet.",
        f"It runs {runs}. Create a campaign whose filter matches it to send it a version.",
    )


def _runs(page: NodePage) -> str:
    active = page.slots[0]
    if active.image:
        return str(active.image.version)
    return f"an image that no version here has ({active.digest[:8]})" if active.digest else "an unknown image"


def _waits_for(page: NodePage) -> str:
    """What holds back an update that is planned and not yet offered."""
    assert page.update is not None  # noqa: S101 - callers have checked
    campaign, wave = page.update.campaign, page.update.wave
    if campaign.state == "draft":
        return f"the plan of {campaign.name} awaits approval"
    if campaign.state == "scheduled":
        start = f" at {format_time(campaign.starts_at)}" if campaign.starts_at else ""
        return f"{campaign.name} starts{start}"
    if campaign.state in ("paused", "halted"):
        return f"{campaign.name} is {campaign.state}" + (f" ({campaign.reason.rstrip('.')})" if campaign.reason else "")
    if wave.state == "waiting":
        return f"it waits for wave {wave.index + 1} of {campaign.name}"
    return f"wave {wave.index + 1} of {campaign.name} is open and the node comes next"


def chain(page: NodePage) -> list[Step]:
    """The steps of the newest update, oldest first."""
    steps = []
    update = page.update
    if update:
        steps.append(
            Step(
                "none",
                "",
                f"Chosen for wave {update.wave.index + 1} of {update.campaign.name}",
                f"held {update.base_digest[:8] or 'an unknown image'} when it was planned",
            )
        )
    steps += [
        Step(
            event.to_state,
            format_time(event.at),
            event.to_state.capitalize(),
            causes.sentence(event.cause) if event.cause else "",
        )
        for event in reversed(page.update_events)
    ]
    if page.misfit:
        steps += [
            Step("rejected", "", f"{page.misfit.image.version} does not fit {page.node.profile.name}", reason)
            for reason in page.misfit.reasons
        ]
    if page.is_silent and page.presence:
        steps.append(
            Step(
                "silent",
                format_time(page.presence.last_seen_at),
                "Last heard",
                "longer ago than three of its intervals",
            )
        )
    return steps
