"""What a campaign binds itself to besides its nodes: timers, attempts, limits, priority, windows, start and end, membership.

All of it stands in the plan, so that the approved hash covers it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from django.db.models import Count, Exists, OuterRef

from updates.campaigns.deadlines import OFFER_TIMEOUT_S, PATCH_DEADLINE_S, PROGRESS_TIMEOUT_S
from updates.campaigns.fairness import PRIORITY_HIGHEST
from updates.campaigns.limits import LimitError, read_limits
from updates.campaigns.windows import Calendar, WindowError
from updates.models import Campaign, EndBehaviour, Membership, NodeUpdate
from updates.states import OPEN_STATES, CampaignState, NodeUpdateState

DEFAULTS: dict[str, Any] = {
    "offer_timeout_s": OFFER_TIMEOUT_S,
    "progress_timeout_s": PROGRESS_TIMEOUT_S,
    "maximum_attempts": 3,
    "priority": 50,
    "limits": {},
    "windows": {},
    "full_image_allowed": True,
    "patch_deadline_s": PATCH_DEADLINE_S,
    "ends_at": None,
    "end_behaviour": EndBehaviour.FINISH,
    "membership": Membership.FIXED,
}
ATTEMPTS_HIGHEST = 10
PATCH_DEADLINE_HIGHEST_S = 31_536_000
LIVE = [CampaignState.SCHEDULED, CampaignState.RUNNING, CampaignState.PAUSED, CampaignState.HALTED]


class PlanRefused(ValueError):
    """The campaign cannot be planned: `field` is what to change, `fix` how."""

    def __init__(self, field: str, message: str, fix: str) -> None:
        super().__init__(f"{message} {fix}")
        self.field, self.message, self.fix = field, message, fix


def read_terms(values: Mapping[str, Any], *, starts_at: datetime | None, now: datetime) -> dict[str, Any]:
    """Fields of Campaign, with DEFAULTS for what is left out. Raises PlanRefused."""
    if unknown := set(values) - set(DEFAULTS):
        raise PlanRefused(min(unknown), f"{min(unknown)} is unknown.", f"Known are {', '.join(sorted(DEFAULTS))}.")
    terms = DEFAULTS | dict(values)
    for name, lowest, highest in (("priority", 0, PRIORITY_HIGHEST), ("maximum_attempts", 1, ATTEMPTS_HIGHEST)):
        if isinstance(terms[name], bool) or not isinstance(terms[name], int) or not lowest <= terms[name] <= highest:
            raise PlanRefused(name, f"{name} is {terms[name]!r}.", f"Give a whole number from {lowest} to {highest}.")
    for name, choices in (("end_behaviour", EndBehaviour), ("membership", Membership)):
        if terms[name] not in choices.values:
            raise PlanRefused(name, f"{name} is {terms[name]!r}.", f"Give {' or '.join(choices.values)}.")
    allowed, deadline_s = terms["full_image_allowed"], terms["patch_deadline_s"]
    if not isinstance(allowed, bool):
        raise PlanRefused("full_image_allowed", f"full_image_allowed is {allowed!r}.", "Give true or false.")
    if (
        isinstance(deadline_s, bool)
        or not isinstance(deadline_s, int)
        or not 0 <= deadline_s <= PATCH_DEADLINE_HIGHEST_S
    ):
        fix = f"Give whole seconds from 0 to {PATCH_DEADLINE_HIGHEST_S}."
        raise PlanRefused("patch_deadline_s", f"patch_deadline_s is {deadline_s!r}.", fix)
    try:
        calendar = Calendar.read(terms["windows"])
        terms["windows"] = {name: part for name, part in terms["windows"].items() if part}
        terms["limits"] = read_limits(terms["limits"])
    except (WindowError, LimitError) as error:
        raise PlanRefused(error.field, f"{error}.", "Leave the field out for none.") from error
    ends_at = terms["ends_at"]
    if ends_at is not None and ends_at <= max(now, starts_at or now):
        raise PlanRefused("ends_at", f"ends_at is {ends_at:%Y-%m-%d %H:%M %Z}.", "Give a time after the start.")
    if calendar.next_transfer(max(now, starts_at or now), "") is None:
        raise PlanRefused("windows.transfer", "No transfer window opens within a year.", "Widen windows or blackout.")
    return terms


def promised(campaign: Campaign, *, now: datetime) -> dict[str, Any]:
    """The plan's `terms`, and `conflicts`: other live campaigns that have nodes of this one, and who goes first on them."""
    terms = {name: getattr(campaign, name) for name in DEFAULTS}
    for name in ("starts_at", "ends_at"):
        at = getattr(campaign, name)
        terms[name] = at.isoformat() if at else None
    return {"terms": terms, "conflicts": _conflicts(campaign)}


def _conflicts(campaign: Campaign) -> list[dict[str, Any]]:
    mine = NodeUpdate.objects.filter(campaign=campaign, node=OuterRef("node"), state=NodeUpdateState.PLANNED)
    theirs = NodeUpdate.objects.filter(
        Exists(mine), campaign__state__in=LIVE, state__in=[NodeUpdateState.PLANNED, *OPEN_STATES]
    ).exclude(campaign=campaign)
    columns = ("campaign_id", "campaign__name", "campaign__state", "campaign__priority")
    rows = theirs.values_list(*columns).annotate(nodes=Count("id")).order_by("campaign_id")
    return [
        {
            "campaign": pk,
            "name": name,
            "state": state,
            "nodes": nodes,
            "rule": _rule(campaign.priority, priority, state),
        }
        for pk, name, state, priority, nodes in rows
    ]


def _rule(ours: int, theirs: int, state: str) -> str:
    """The sentence an approver reads; `docs/campaigns.md` has the rule whole."""
    if state == CampaignState.SCHEDULED:
        return "It starts later, so it takes the nodes over once this one has ended on them."
    if state in (CampaignState.PAUSED, CampaignState.HALTED):
        return "It stands still: this one takes over what it has on the air, and waits for what is whole on a node."
    if ours > theirs:
        return (
            "This one has the higher priority: it takes over offers that nodes have not begun, and waits for the rest."
        )
    if ours < theirs:
        return (
            "It has the higher priority: this one waits for its nodes, for 7 days at most where they are only planned."
        )
    return "Equal priority: this one waits for what is open there, and takes over what is only planned."
