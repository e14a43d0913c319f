"""Reads that shape pages out of devices and updates."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import (
    Count,
    DateTimeField,
    DurationField,
    ExpressionWrapper,
    F,
    QuerySet,
    Value,
)
from django.db.models.functions import Coalesce, Greatest, Least

from devices import selectors as devices
from devices.models import Node, NodePresence, UnknownEndpoint
from fleet.clock import fleet_time
from frontend.svg import Segment, lane
from updates import selectors as updates
from updates.models import Campaign

PAGE = 50
# A node is silent after 3 of its own intervals, within 48 h and 30 d of fleet time (docs: default policies).
SILENT_INTERVALS = 3
SILENT_AT_LEAST_S, SILENT_AT_MOST_S = 48 * 3600, 30 * 24 * 3600


def silent(*, now: datetime) -> QuerySet[NodePresence]:
    """Presence of nodes that are heard of less than their own rhythm allows. A node asleep is not silent."""
    own = ExpressionWrapper(
        Coalesce(F("report_interval_s"), 0.0) * Value(timedelta(seconds=SILENT_INTERVALS)), output_field=DurationField()
    )
    patience = Greatest(Least(own, Value(fleet_time(SILENT_AT_MOST_S))), Value(fleet_time(SILENT_AT_LEAST_S)))
    deadline = ExpressionWrapper(F("last_seen_at") + patience, output_field=DateTimeField())
    return NodePresence.objects.annotate(deadline=deadline).filter(deadline__lt=now)


@dataclass(frozen=True)
class Share:
    """How many nodes say that they run an image. `name` is empty for a digest that no version has."""

    name: str
    digest: str
    nodes: int
    percent: float
    version_id: int | None


def version_shares() -> list[Share]:
    """Most nodes first. Whole digests and their prefixes count as one."""
    counts: dict[str, int] = {}
    for row in Node.objects.order_by().values("active_digest").annotate(nodes=Count("id")):
        prefix = row["active_digest"][:8]
        counts[prefix] = counts.get(prefix, 0) + row["nodes"]
    images, total = updates.images_by_prefix(counts), sum(counts.values())
    shares = [
        Share(
            str(images[prefix].version) if prefix in images else "",
            prefix,
            nodes,
            100 * nodes / total,
            images[prefix].version_id if prefix in images else None,
        )
        for prefix, nodes in counts.items()
    ]
    return sorted(shares, key=lambda share: (-share.nodes, share.name))


@dataclass(frozen=True)
class CampaignRow:
    campaign: Campaign
    counts: dict[str, int]

    @property
    def lane(self) -> list[Segment]:
        return lane(self.counts)

    @property
    def nodes(self) -> int:
        return sum(self.counts.values())

    @property
    def eligible(self) -> int:
        """Without those that the plan left out."""
        return self.nodes - self.counts.get("skipped", 0)

    @property
    def confirmed(self) -> int:
        return self.counts.get("confirmed", 0)

    @property
    def attention(self) -> dict[str, int]:
        """Node updates that a person may have to look at."""
        return {
            state: self.counts[state]
            for state in ("failed", "rejected", "reverted", "silent")
            if self.counts.get(state)
        }


def campaign_rows(campaigns: list[Campaign]) -> list[CampaignRow]:
    counts = updates.counts_by_campaign([campaign.pk for campaign in campaigns])
    return [CampaignRow(campaign, counts[campaign.pk]) for campaign in campaigns]


@dataclass(frozen=True)
class Overview:
    nodes: int
    live: list[CampaignRow]
    drafts: list[Campaign]
    shares: list[Share]
    silent_nodes: int
    silent_examples: list[NodePresence]
    never_heard: int
    unknown: list[UnknownEndpoint]
    unknown_count: int

    @property
    def stopped(self) -> list[Campaign]:
        return [row.campaign for row in self.live if row.campaign.state in ("halted", "paused")]

    @property
    def halted(self) -> list[Campaign]:
        return [row.campaign for row in self.live if row.campaign.state == "halted"]

    @property
    def fallen_short(self) -> int:
        return sum(sum(row.attention.values()) for row in self.live)

    @property
    def needs_attention(self) -> bool:
        return bool(self.stopped or self.fallen_short or self.silent_nodes or self.unknown_count or self.drafts)


def overview(*, now: datetime) -> Overview:
    silent_rows = silent(now=now)
    shares, unknown = version_shares(), devices.unknown_endpoints()
    return Overview(
        nodes=sum(share.nodes for share in shares),
        live=campaign_rows(updates.live_campaigns()),
        drafts=updates.drafts(),
        shares=shares,
        silent_nodes=silent_rows.count(),
        silent_examples=list(silent_rows.select_related("node__profile").order_by("last_seen_at")[:6]),
        never_heard=Node.objects.filter(presence__isnull=True).count(),
        unknown=list(unknown[:6]),
        unknown_count=unknown.count(),
    )
