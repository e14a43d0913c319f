"""The verdict sentence of each page, and what templates need besides rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django import forms
from django.http import Http404, HttpRequest

from devices.imports import Report
from devices.relabelling import Preview
from frontend.node_list import NodeFilter
from frontend.selectors import Overview
from frontend.svg import ConfusionRow, Interval, confusion, lane
from updates import selectors as updates
from updates.models import Campaign, Fit, ModelImage, ModelVersion
from updates.states import CampaignState, VersionState


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


def relabel_verdict(preview: Preview | None, selection: str) -> Verdict:
    if preview is None:
        return Verdict(
            "is-none", "i-node", f"Change labels or site of {selection}.", "Nothing changes before you confirm."
        )
    if not preview.changes:
        return Verdict("is-planned", "s-planned", f"This changes none of {plural(preview.selected, 'node')}.")
    unchanged = preview.selected - preview.changes
    rest = f"{plural(unchanged, 'node')} of the selection already stand so." if unchanged else ""
    return Verdict("is-held", "s-tight", f"This changes {plural(preview.changes, 'node')}.", rest)


def import_verdict(report: Report | None) -> Verdict:
    if report is None:
        return Verdict("is-none", "i-node", "Register or update many nodes from a CSV file.", "A dry run comes first.")
    if report.errors:
        wrong = plural(len(report.errors), "thing is", "things are")
        return Verdict("is-failed", "s-failed", f"Nothing was stored: {wrong} wrong in {plural(report.rows, 'row')}.")
    sentence = f"This registers {plural(report.created, 'node')} and updates {report.updated:,}."
    return Verdict("is-held", "s-tight", sentence, f"{report.unchanged:,} stand so already. Nothing is stored yet.")


def versions_verdict(versions: list[ModelVersion]) -> Verdict:
    if not versions:
        return Verdict(
            "is-planned", "s-planned", "No version has been uploaded yet.", "Upload a network with its data."
        )
    newest = versions[0]
    sentences = {
        VersionState.READY: ("is-confirmed", "s-confirmed", f"The newest version, {newest}, is ready."),
        VersionState.REFUSED: ("is-rejected", "s-rejected", f"The newest version, {newest}, was refused."),
    }
    css, icon, sentence = sentences.get(
        VersionState(newest.state), ("is-moving", "s-trial", f"The newest version, {newest}, is being built.")
    )
    return Verdict(css, icon, sentence)


def version_verdict(version: ModelVersion, fits: list[Fit], images: list[ModelImage]) -> Verdict:
    if version.state == VersionState.REFUSED:
        refusal = version.refusal or {}
        return Verdict(
            "is-rejected",
            "s-rejected",
            f"Refused: {refusal.get('field', 'the upload')}: {refusal.get('message', '').rstrip('.')}.",
            as_sentence(refusal.get("fix", "")),
        )
    if version.state != VersionState.READY:
        stage = f" ({version.stage})" if version.stage else ""
        return Verdict(
            "is-moving", "s-trial", f"Being built: {version.progress_percent} %{stage}.", "The verdict comes by itself."
        )
    good, profiles = {fit.profile_id for fit in fits if fit.fits}, {fit.profile_id for fit in fits}
    verdicts = {image.validation.verdict for image in images if hasattr(image, "validation")}
    may = f"{version} may run on {len(good)} of {plural(len(profiles), 'profile')}"
    if "passed" in verdicts and good:
        return Verdict("is-fits", "s-confirmed", f"{may}, and decides like the fp32 baseline in every slice.")
    if "failed" in verdicts:
        return Verdict("is-fail", "s-failed", f"{version} does not decide like its fp32 baseline.", _reasons(images))
    if "inconclusive" in verdicts:
        return Verdict(
            "is-inconclusive", "s-inconclusive", f"{version} has too few samples to judge.", _reasons(images)
        )
    return Verdict("is-nofit", "s-failed", f"{may}.", "The table below names what is too large and by how much.")


def _reasons(images: list[ModelImage]) -> str:
    return " ".join(reason for image in images if hasattr(image, "validation") for reason in image.validation.reasons)


def version_page(version: ModelVersion) -> dict[str, Any]:
    images = list(version.images.all())
    fits = [fit for image in images for fit in image.fits.all()]
    by_profile: dict[int, dict[int, Fit]] = {}
    for fit in fits:
        by_profile.setdefault(fit.profile_id, {})[fit.image_id] = fit
    profiles = {fit.profile_id: fit.profile for fit in fits}
    rows = [
        (profile, [by_profile[pk].get(image.pk) for image in images])
        for pk, profile in sorted(profiles.items(), key=lambda item: item[1].name)
    ]
    return {
        "version": version,
        "images": images,
        "fit_rows": rows,
        "reports": [_report(image) for image in images if hasattr(image, "validation")],
        "building": version.state in (VersionState.UPLOADED, VersionState.BUILDING),
        "verdict": version_verdict(version, fits, images),
    }


_SEVERITY = {"failed": 0, "inconclusive": 1, "passed": 2}


def _report(image: ModelImage) -> dict[str, Any]:
    """Slices worst first, with the change of accuracy; confusion matrices of the worst slice that has them."""
    slices = [
        {
            **one,
            "change": one["accuracy_int8"] - one["accuracy_fp32"] if one.get("accuracy_int8") is not None else None,
            "worst_name": _class_name(image, one.get("worst_class")),
        }
        for one in image.validation.slices
    ]
    slices.sort(key=lambda one: (_SEVERITY.get(one["verdict"], 0), one["change"] or 0, one["name"]))
    shown = next((one for one in slices if one.get("confusion_fp32")), None)
    return {
        "image": image,
        "slices": slices,
        "confused": shown,
        "names": _class_names(image, len(shown["confusion_fp32"])) if shown else [],
        "matrices": _matrices(image, shown) if shown else [],
    }


def _matrices(image: ModelImage, one: dict[str, Any]) -> list[tuple[str, list[ConfusionRow]]]:
    names = _class_names(image, len(one["confusion_fp32"]))
    return [
        ("fp32, the baseline", confusion(one["confusion_fp32"], names)),
        (
            f"{image.precision}, as the runtime decides, and the change",
            confusion(one["confusion_int8"], names, one["confusion_fp32"]),
        ),
    ]


def _class_names(image: ModelImage, count: int) -> list[str]:
    names = image.version.family.class_names
    return [str(names[index]) if index < len(names) else f"class {index}" for index in range(count)]


def _class_name(image: ModelImage, index: int | None) -> str:
    return "" if index is None else _class_names(image, index + 1)[index]


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
