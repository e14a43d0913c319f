"""Which planned updates of a campaign may be offered now, and which will never be.

Each tick looks at a bounded stretch of a wave's planned updates and goes on there the next time, so that a million that
have to wait cost a tick no more than a thousand. Whoever waits is looked at again in each round.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.db.models import BooleanField, Exists, ExpressionWrapper, F, OuterRef, Q, QuerySet, Value

from fleet.clock import fleet_time
from updates.campaigns.fairness import PATIENCE_S
from updates.campaigns.limits import Room, group_of
from updates.campaigns.plan_patches import late, patch_of_node_update
from updates.models import Campaign, Method, NodeUpdate, Wave
from updates.states import OPEN_STATES, CampaignState, NodeUpdateState

SCAN = 2000
S = NodeUpdateState
# A newer campaign's update in one of these has used up, or will, a sequence that ours is below: the node would refuse ours.
TAKEN = [*OPEN_STATES, S.CONFIRMED, S.REVERTED, S.SILENT]


@dataclass
class Found:
    """Ids of node updates, by what is to happen to them."""

    offer: list[int] = field(default_factory=list)
    superseded: list[int] = field(default_factory=list)
    current: list[int] = field(default_factory=list)
    unpatched: list[int] = field(default_factory=list)


def look(
    campaign: Campaign, wave: Wave, *, room: Room, zones: Collection[str] | None, most: int, now: datetime
) -> Found:
    """At up to SCAN planned updates of this wave, from where the last look ended; the wave's cursor moves on.

    `zones`: time zones whose window is open; None: there are no windows.
    """
    found = Found()
    began = wave.offer_cursor
    end = _look_from(campaign, wave, found, room=room, zones=zones, most=most, now=now)
    if end is None and began and room.left() and len(found.offer) < most:
        wave.offer_cursor = 0
        end = _look_from(campaign, wave, found, room=room, zones=zones, most=most, now=now, until=began)
    if (end or 0) != began:
        Wave.objects.filter(pk=wave.pk).update(offer_cursor=end or 0)
    return found


def _look_from(
    campaign: Campaign,
    wave: Wave,
    found: Found,
    *,
    room: Room,
    zones: Collection[str] | None,
    most: int,
    now: datetime,
    until: int | None = None,
) -> int | None:
    """The id to go on from, None at the end of the wave."""
    stretch = NodeUpdate.objects.filter(wave=wave, state=S.PLANNED, id__gt=wave.offer_cursor)
    if until is not None:
        stretch = stretch.filter(id__lte=until)
    group_columns = [group_of(name) for name in room.groups]
    own = ("pk", "superseded", "current", "waits", "unpatched", "node__time_zone")
    rows = list(_annotated(stretch, campaign, now).order_by("id").values_list(*own, *group_columns)[:SCAN])
    for pk, superseded, current, waits, unpatched, zone, *groups in rows:
        if superseded:
            found.superseded.append(pk)
        elif current:
            found.current.append(pk)
        elif unpatched:
            found.unpatched.append(pk)
        elif not waits and (zones is None or zone in zones):
            if len(found.offer) == most or not room.left():
                # This one is the first of the next look.
                return int(pk) - 1
            if room.take(groups):
                found.offer.append(pk)
    return int(rows[-1][0]) if len(rows) == SCAN else None


def _annotated(updates: QuerySet[NodeUpdate], campaign: Campaign, now: datetime) -> QuerySet[NodeUpdate, Any]:
    others = NodeUpdate.objects.filter(node=OuterRef("node")).exclude(campaign=campaign)
    waits = Q(Exists(others.filter(state__in=OPEN_STATES))) | Q(not_before__gt=now)
    if campaign.started_at is not None and now < campaign.started_at + fleet_time(PATIENCE_S):
        running = others.filter(campaign__state=CampaignState.RUNNING, campaign__priority__gt=campaign.priority)
        waits |= Q(Exists(running.filter(state=S.PLANNED)))
    no_patch: Q | Value = Value(False)
    if not campaign.full_image_allowed:
        updates = updates.annotate(**patch_of_node_update())
        needs_patch = Q(has_patch=False, method=Method.PATCH)
        if late(campaign, now=now):
            no_patch = needs_patch
        else:
            no_patch, waits = needs_patch & Q(patch_to_come=False), waits | (needs_patch & Q(patch_to_come=True))
    return updates.annotate(
        unpatched=ExpressionWrapper(no_patch, output_field=BooleanField()),
        superseded=Exists(others.filter(state__in=TAKEN, campaign__sequence__gt=campaign.sequence)),
        current=Q(node__active_digest=F("image__known_id")),
        waits=waits,
    )


def outdone(campaign: Campaign, *, now: datetime, most: int) -> list[tuple[int, str]]:
    """Id and link of updates on the air that this campaign leaves to a newer running one.

    Offers that the node has not begun go to a campaign of higher priority. One that is paused or halted leaves all that
    it had on the air to any newer campaign: it may never go on.
    """
    wanted = NodeUpdate.objects.filter(
        node=OuterRef("node"),
        state=S.PLANNED,
        campaign__state=CampaignState.RUNNING,
        campaign__sequence__gt=campaign.sequence,
        wave__opened_at__isnull=False,
    )
    if campaign.state == CampaignState.RUNNING:
        states, wanted = [S.OFFERED], wanted.filter(campaign__priority__gt=campaign.priority)
    else:
        states = [S.OFFERED, S.TRANSFERRING]
    mine = campaign.node_updates.filter(Exists(wanted), state__in=states).order_by("id")
    return list(mine.values_list("pk", "node__link")[:most])
