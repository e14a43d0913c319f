"""The verdict sentence of each page, and what templates need besides rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django import forms
from django.http import Http404, HttpRequest

from frontend.selectors import NodeFilter, Overview
from frontend.svg import Interval, lane
from updates import selectors as updates
from updates.models import Campaign
from updates.states import CampaignState


@dataclass(frozen=True)
class Verdict:
    """One sentence on top of a page, and what follows. `css` and `icon` give its state."""

    css: str
    icon: str
    sentence: str
    next: str = ""


def key(request: HttpRequest, name: str) -> int | None:
    """A key of keyset paging. Raises Http404 where it is not a positive number."""
    text = request.GET.get(name, "")
    if text and not (text.isascii() and text.isdigit() and len(text) < 19):
        raise Http404(f"{name} is “{text}”; it must be the id of a row.")
    return int(text) if text else None


def plural(count: int, one: str, many: str = "") -> str:
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def as_sentence(words: str) -> str:
    """With a capital first letter and a full stop; the rest as it is, for it may hold names."""
    return f"{words[0].upper()}{words[1:].rstrip('.')}." if words else ""


def fleet_verdict(overview: Overview) -> Verdict:
    if not overview.nodes:
        return Verdict(
            "is-planned",
            "s-planned",
            "No node is registered yet.",
            "Register nodes over the API, or let one speak to a gateway: unknown endpoints are listed here.",
        )
    if overview.halted:
        names = ", ".join(campaign.name for campaign in overview.halted)
        return Verdict("is-failed", "i-stop", f"Halted by its gate: {names}.", overview.halted[0].reason)
    wants = []
    if overview.fallen_short:
        wants.append(f"{plural(overview.fallen_short, 'update')} in live campaigns fell short")
    if overview.silent_nodes:
        wants.append(f"{plural(overview.silent_nodes, 'node is', 'nodes are')} silent")
    if overview.stopped:
        wants.append(f"{plural(len(overview.stopped), 'campaign is', 'campaigns are')} paused")
    if overview.drafts:
        wants.append(f"{plural(len(overview.drafts), 'plan awaits', 'plans await')} approval")
    if overview.unknown_count:
        wants.append(f"{plural(overview.unknown_count, 'unknown endpoint')} knocked")
    if wants:
        return Verdict("is-held", "s-tight", as_sentence("; ".join(wants)), "Each line below leads to the nodes meant.")
    live = plural(len(overview.live), "live campaign")
    return Verdict("is-confirmed", "s-confirmed", f"Nothing needs you: {plural(overview.nodes, 'node')}, {live}.")


def nodes_verdict(wanted: NodeFilter, *, shown: int, more: bool, first: bool, readable: bool) -> Verdict:
    if not readable:
        return Verdict("is-held", "s-held", "This filter cannot be read, so no node is shown.")
    if not shown:
        return Verdict("is-planned", "s-planned", "No node matches this filter.", "Clear the filter to see more.")
    which = "match this filter" if wanted != NodeFilter() else "are registered"
    if first and not more:
        verb = which if shown != 1 else which.replace("match", "matches").replace("are", "is")
        return Verdict("is-none", "i-node", f"{plural(shown, 'node')} {verb}.")
    return Verdict("is-none", "i-node", f"More nodes {which} than one page holds; {shown} are shown.")


def campaign_verdict(campaign: Campaign, counts: dict[str, int]) -> Verdict:
    total, confirmed = sum(counts.values()), counts.get("confirmed", 0)
    left = counts.get("skipped", 0)
    progress = f"{confirmed:,} of {total - left:,} nodes confirmed"
    match campaign.state:
        case CampaignState.DRAFT:
            return Verdict("is-planned", "s-planned", f"Draft: the plan of {campaign.name} awaits approval.")
        case CampaignState.SCHEDULED:
            return Verdict("is-planned", "i-clock", f"{campaign.name} is scheduled.", campaign.reason)
        case CampaignState.RUNNING:
            return Verdict("is-moving", "i-wave", f"Running: {progress}.", campaign.reason)
        case CampaignState.PAUSED:
            return Verdict("is-held", "s-held", f"Paused at {progress}.", campaign.reason)
        case CampaignState.HALTED:
            return Verdict("is-failed", "i-stop", f"Halted by its gate at {progress}.", campaign.reason)
        case CampaignState.FINISHED:
            return Verdict("is-confirmed", "s-confirmed", f"Finished: {progress}.", campaign.reason)
        case _:
            return Verdict("is-cancelled", "s-cancelled", f"Aborted at {progress}.", campaign.reason)


def campaign_page(campaign: Campaign) -> dict[str, Any]:
    waves = updates.waves(campaign.pk)
    counts: dict[str, int] = {}
    for wave in waves:
        for state, count in wave.counts.items():
            counts[state] = counts.get(state, 0) + count
    causes = updates.failure_causes(campaign.pk)
    most = max((row["nodes"] for row in causes), default=1)
    judged = [wave.wave for wave in waves if wave.wave.verdict]
    total = sum(counts.values())
    return {
        "campaign": campaign,
        "lanes": [(wave, lane(wave.counts)) for wave in waves],
        "counts": counts,
        "total": total,
        "eligible": total - counts.get("skipped", 0),
        "moving": sum(counts.get(state, 0) for state in ("offered", "transferring", "staged", "trial")),
        "fell_short": sum(counts.get(state, 0) for state in ("failed", "rejected", "silent", "reverted")),
        "causes": [{**row, "width": 100 * row["nodes"] / most} for row in causes],
        "bytes": updates.received_bytes(campaign.pk),
        "events": updates.events_of_campaign(campaign.pk),
        "gate": gate_panel(judged[-1].index, judged[-1].verdict or {}) if judged else None,
        "verdict": campaign_verdict(campaign, counts),
        "ended": campaign.state in (CampaignState.FINISHED, CampaignState.ABORTED),
    }


def gate_panel(index: int, verdict: dict[str, Any]) -> dict[str, Any]:
    """The newest decision of the gate, with the interval of failures on one axis with its limit (all in percent)."""
    completed, failures = verdict["completed"], verdict["failures"]
    limit = verdict["policy"]["maximum_failure_percent"]
    share = 100 * failures / completed if completed else 0.0
    interval = Interval(verdict["failure_low_percent"], verdict["failure_high_percent"], share, limit)
    return {"wave": index + 1, "verdict": verdict, "share": share, "interval": interval}


def plan_verdict(campaign: Campaign) -> Verdict:
    plan = campaign.plan
    if campaign.state != CampaignState.DRAFT:
        sentence = (
            f"This is the plan that {campaign.name} was approved with: {plan['reached']:,} of {plan['nodes']:,} nodes."
        )
        return Verdict("is-confirmed", "s-confirmed", sentence)
    if plan.get("pending_patches"):
        waits = plural(plan["pending_patches"], "patch is", "patches are")
        return Verdict(
            "is-moving", "s-trial", f"Not ready to approve: {waits} still being built.", "This page follows it."
        )
    if not plan["reached"]:
        return Verdict("is-rejected", "s-rejected", "This plan reaches no node.", "The reasons are below.")
    sentence = f"Ready to approve: {plan['reached']:,} of {plan['nodes']:,} nodes are reached."
    refused = sum(row["nodes"] for row in plan["refused"])
    left = f"{plural(refused, 'node is', 'nodes are')} left out, with reasons below. " if refused else ""
    return Verdict(
        "is-planned", "s-planned", sentence, f"{left}Nothing is sent before an approver approves this exact plan."
    )


def add_refusal(form: forms.Form, field: str, text: str) -> None:
    """At the field that the refusal names, else on top of the form."""
    form.add_error(field if field in form.fields else None, text if field in form.fields else f"{field}: {text}")
