"""Who belongs to a dynamic campaign while it runs: nodes that match its filter join, nodes that no longer do leave.

Each tick looks at SCAN node ids, from where the last one ended, and begins anew after the last node. A node that joins
goes to the wave that its hash says; it gets an image if there is one for it, else it is looked at again in each round. What
is open on a node goes on whether the node matches or not.
"""

from __future__ import annotations

from collections import Counter
from datetime import datetime

from django.db import connection
from django.db.models import Exists, OuterRef, Q, QuerySet

from devices.models import Node
from updates.campaigns.eligibility import images_of
from updates.campaigns.plan import copy_node_updates, members_among
from updates.campaigns.plan_patches import ask_for_patches, without_full_images
from updates.campaigns.transitions import count, move
from updates.campaigns.waves import wave_of
from updates.models import Campaign, NodeUpdate
from updates.node_filter import nodes_matching
from updates.states import Actor, NodeUpdateState

SCAN = 5000
S = NodeUpdateState

_JOINED = """
INSERT INTO updates_updateevent (at, campaign_id, node_id, node_update_id, from_state, to_state, cause)
SELECT %s, campaign_id, node_id, id, '', state, 'joined' FROM updates_nodeupdate
WHERE campaign_id = %s AND node_id = ANY(%s)
"""


def follow_filter(campaign: Campaign, *, now: datetime) -> None:
    """One stretch of node ids. Call under the campaign's lock."""
    first = campaign.membership_cursor
    last = Node.objects.filter(pk__gt=first).order_by("pk").values_list("pk", flat=True)[SCAN - 1 : SCAN].first()
    stretch = Q(pk__gt=first) if last is None else Q(pk__gt=first, pk__lte=last)
    matching = nodes_matching(campaign.node_filter, now=now).filter(stretch)
    _join(campaign, matching, now)
    if campaign.node_filter:
        _leave_or_return(campaign, matching, first, last, now)
    if (last or 0) != first:
        Campaign.objects.filter(pk=campaign.pk).update(membership_cursor=last or 0)
        campaign.membership_cursor = last or 0


def _join(campaign: Campaign, matching: QuerySet[Node], now: datetime) -> None:
    known = NodeUpdate.objects.filter(campaign=campaign, node=OuterRef("pk"))
    if campaign.version is None:
        raise ValueError(f"campaign {campaign.pk} is dynamic and has no version")
    new = matching.exclude(Exists(known))
    found = members_among(new, images=images_of(campaign.version), now=now)
    members = [
        one for one in (found if campaign.full_image_allowed else without_full_images(found)) if one.image is not None
    ]
    if not members:
        return
    waves = list(campaign.waves.order_by("index"))
    percents = [wave.percent for wave in waves]
    index_of = {one.node_id: wave_of(salt=campaign.salt, node_id=one.node_id, percents=percents) for one in members}
    copy_node_updates(campaign, waves, members, index_of, now)
    with connection.cursor() as cursor:
        cursor.execute(_JOINED, [now, campaign.pk, [one.node_id for one in members]])
    count(Counter((waves[index_of[one.node_id]].pk, str(S.PLANNED)) for one in members))
    # The campaign waits for none of these: until one is built, the node gets the full image; where the plan allows none,
    # the node alone waits.
    ask_for_patches(campaign, members, now=now)
    Campaign.objects.filter(pk=campaign.pk).update(patches_due_at=campaign.patches_due_at)


def _leave_or_return(campaign: Campaign, matching: QuerySet[Node], first: int, last: int | None, now: datetime) -> None:
    mine = campaign.node_updates.filter(node_id__gt=first)
    if last is not None:
        mine = mine.filter(node_id__lte=last)
    matches = Exists(matching.order_by().filter(pk=OuterRef("node_id")))
    left = list(mine.filter(~matches, state=S.PLANNED).values_list("pk", flat=True))
    back = list(mine.filter(matches, state=S.CANCELLED, cause="no-longer-matches").values_list("pk", flat=True))
    move(left, S.CANCELLED, now=now, by=Actor.ENGINE, cause="no-longer-matches")
    move(back, S.PLANNED, now=now, by=Actor.ENGINE, cause="matches-again", sources=[S.CANCELLED])
