"""What a person should look at: campaigns that stand still, nodes whose newest update did not succeed, nodes in the box."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from django.db.models import Exists, OuterRef, Q

from devices.models import Node
from updates.campaigns import penalties
from updates.causes import sentence
from updates.models import Campaign, NodeUpdate
from updates.states import FAULTS, CampaignState, NodeUpdateState

STOPPED = [CampaignState.PAUSED, CampaignState.HALTED]
FELL_SHORT = [*FAULTS, NodeUpdateState.SILENT]


@dataclass(frozen=True)
class NodeAttention:
    """`kind`: penalty-box, or the state in which the newest update ended. `faults` in the penalty box's time; 0 outside."""

    node: Node
    update: NodeUpdate
    kind: str
    reason: str
    since: datetime
    faults: int


def stopped_campaigns() -> list[Campaign]:
    """Paused and halted ones, newest first; their `reason` says why."""
    return list(Campaign.objects.filter(state__in=STOPPED).select_related("version__family").order_by("-id"))


def nodes_needing_attention(*, now: datetime, before: int | None = None, limit: int = 50) -> list[NodeAttention]:
    """Nodes whose newest update that came to anything fell short; latest first, from below the node update id `before`.

    A node update that is open or confirmed after it settles it. Three queries for a page.
    """
    later = NodeUpdate.objects.filter(node=OuterRef("node"), pk__gt=OuterRef("pk")).exclude(
        Q(state=NodeUpdateState.SKIPPED) | Q(state=NodeUpdateState.CANCELLED) | Q(state=NodeUpdateState.PLANNED)
    )
    rows = NodeUpdate.objects.filter(~Exists(later), state__in=FELL_SHORT)
    if before:
        rows = rows.filter(pk__lt=before)
    page = list(rows.select_related("node", "campaign__version__family", "wave").order_by("-id")[:limit])
    in_box = penalties.boxed(now=now, node_ids=[row.node_id for row in page])
    return [
        NodeAttention(
            node=row.node,
            update=row,
            kind="penalty-box" if row.node_id in in_box else row.state,
            reason=sentence(row.cause),
            since=row.changed_at,
            faults=in_box.get(row.node_id, 0),
        )
        for row in page
    ]
