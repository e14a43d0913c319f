"""What the pages of campaigns say, and what their templates need besides rows."""

from __future__ import annotations

from typing import Any

from django import forms
from django.utils import timezone

from frontend.pages import Verdict, plural
from frontend.plan_pages import plan_calendar
from frontend.svg import Interval, lane
from updates import selectors as updates
from updates.campaigns.gates import wilson
from updates.campaigns.history import history
from updates.models import Campaign
from updates.states import CampaignState


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
    most, fell = max((row["nodes"] for row in causes), default=1), sum(row["nodes"] for row in causes)
    judged = [wave.wave for wave in waves if wave.wave.verdict]
    total = sum(counts.values())
    calendar = plan_calendar(campaign.plan, campaign=campaign, start=campaign.started_at or timezone.now())
    forecast = {bar.dates.index: bar.dates for bar in calendar.bars} if calendar else {}
    return {
        "campaign": campaign,
        "lanes": [(wave, lane(wave.counts), forecast.get(wave.wave.index)) for wave in waves],
        "counts": counts,
        "total": total,
        "eligible": total - counts.get("skipped", 0),
        "moving": sum(counts.get(state, 0) for state in ("offered", "transferring", "staged", "trial")),
        "fell_short": sum(counts.get(state, 0) for state in ("failed", "rejected", "silent", "reverted")),
        "causes": _pareto(causes, most, fell),
        "history": history(campaign.pk),
        "bytes": updates.received_bytes(campaign.pk),
        "events": updates.events_of_campaign(campaign.pk),
        "gate": gate_panel(judged[-1].index, judged[-1].verdict or {}) if judged else None,
        "verdict": campaign_verdict(campaign, counts),
        "ended": campaign.state in (CampaignState.FINISHED, CampaignState.ABORTED),
    }


def _pareto(causes: list[dict[str, Any]], most: int, fell: int) -> list[dict[str, Any]]:
    """With the width of each bar and the share of all that this cause and those before it make up."""
    rows, so_far = [], 0
    for row in causes:
        so_far += row["nodes"]
        rows.append({**row, "width": 100 * row["nodes"] / most, "so_far": so_far / fell})
    return rows


def gate_panel(index: int, verdict: dict[str, Any]) -> dict[str, Any]:
    """The newest decision of the gate, a row for each of its metrics, all in percent."""
    policy, completed, silent = verdict["policy"], verdict["completed"], verdict["silent"]
    silent_low, silent_high = (100 * bound for bound in wilson(silent, silent + completed))
    failures = _metric(
        "Failures",
        hits=verdict["failures"],
        of=completed,
        low=verdict["failure_low_percent"],
        high=verdict["failure_high_percent"],
        limit=policy["maximum_failure_percent"],
        denominator="updates that came to an end on the node",
        rule=(
            f"Halts when the low end of the interval is above {policy['maximum_failure_percent']:g} %, on at least "
            f"{policy['minimum_sample']} ended updates. Holds when the wave ends with fewer."
        ),
    )
    silence = _metric(
        "Silence",
        hits=silent,
        of=silent + completed,
        low=silent_low,
        high=silent_high,
        limit=policy["maximum_silent_percent"],
        denominator="updates that ended or fell silent",
        rule=f"Holds when the wave has ended and the share is above {policy['maximum_silent_percent']:g} %.",
    )
    return {
        "wave": index + 1,
        "verdict": verdict,
        "metrics": [failures, silence],
        "needed": policy["minimum_sample"],
    }


def _metric(
    name: str, *, hits: int, of: int, low: float, high: float, limit: float, denominator: str, rule: str
) -> dict[str, Any]:
    share = 100 * hits / of if of else 0.0
    look = "is-fail" if of and low > limit else "is-held" if of and share > limit else "is-pass"
    return {
        "name": name,
        "hits": hits,
        "of": of,
        "share": share,
        "low": low,
        "high": high,
        "limit": limit,
        "denominator": denominator,
        "rule": rule,
        "look": look,
        "interval": Interval(low, high, share, limit),
    }


class CampaignFilterForm(forms.Form):
    """An unknown value does not filter; the page says which it was."""

    name = forms.CharField(required=False, max_length=100, label="Name")
    state = forms.ChoiceField(required=False, choices=[("", "any state"), *CampaignState.choices])

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["state"].widget.attrs["class"] = "select"
        self.fields["name"].widget.attrs |= {"class": "input", "type": "search", "placeholder": "part of a name"}


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
