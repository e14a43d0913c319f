"""What the plan page and the builder's first plan show of a plan besides its own numbers."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from devices.models import LinkKind
from frontend.calendar import WaveCalendar, calendar, wave_dates
from frontend.pages import plural
from updates.models import Campaign


def plan_calendar(plan: Mapping[str, Any], *, campaign: Campaign, start: datetime) -> WaveCalendar | None:
    """None for a plan without waves."""
    if not plan.get("waves"):
        return None
    patience_s = campaign.offer_timeout_s + campaign.progress_timeout_s
    dates = wave_dates(start=start, waves=plan["waves"], transfer_hours=plan["hours"], patience_s=patience_s)
    return calendar(dates, zone=campaign.time_zone)


def link_rows(plan: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Costs by link, named; none for a plan that was stored before they were kept."""
    names = dict(LinkKind.choices)
    return [{**row, "name": names.get(row["link"], row["link"])} for row in plan.get("links", [])]


def gateway_rows(plan: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Gateways with the most to send first; `share` is the percent of a list's largest airtime, for a bar."""
    rows = plan.get("gateways", [])
    most = max((row["airtime_s"] for row in rows), default=0.0)
    return [{**row, "share": 100 * row["airtime_s"] / most if most else 0.0} for row in rows]


def changes(plan: Mapping[str, Any], campaign: Campaign) -> list[str]:
    """What a node goes through, in sentences."""
    if not plan["reached"]:
        return ["Nothing: no node is reached."]
    reverse = len(plan.get("patches", [])) // 2
    back = (
        f"The way back is built before the first node goes forward: {plural(reverse, 'reverse patch', 'reverse patches')}."
        if reverse
        else "No reverse patch is needed or possible: the way back is the previous slot, or a full image."
    )
    return [
        "The standby slot is overwritten; the active one keeps deciding until the new image has passed its self-test.",
        "Then both run on the same windows, the old one decides; a node that reaches no server goes back by itself.",
        "The image from before stays in the other slot, so a rollback is a command of a few bytes.",
        back,
        f"Nodes carry assignment {campaign.sequence} and refuse any older one."
        if campaign.started_at
        else "Each node gets a new assignment number when the campaign starts, and refuses any older one.",
    ]
