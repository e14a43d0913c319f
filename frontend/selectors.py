"""Reads that shape pages out of devices and updates."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.db.models import (
    Count,
    DateTimeField,
    DurationField,
    Exists,
    ExpressionWrapper,
    F,
    OuterRef,
    QuerySet,
    Value,
)
from django.db.models.functions import Coalesce, Greatest, Least

from devices.models import LinkEvent, LinkEventKind, Node, NodePresence, UnknownEndpoint
from devices.wire import WireError, decode_state, is_health_part
from fleet.clock import fleet_time
from frontend.svg import MemoryBar, Segment, lane
from updates import causes
from updates import selectors as updates
from updates.models import Campaign, ModelImage, NodeUpdate, UpdateEvent
from updates.node_filter import nodes_matching

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
    shares = version_shares()
    return Overview(
        nodes=sum(share.nodes for share in shares),
        live=campaign_rows(updates.live_campaigns()),
        drafts=updates.drafts(),
        shares=shares,
        silent_nodes=silent_rows.count(),
        silent_examples=list(silent_rows.select_related("node__profile").order_by("last_seen_at")[:6]),
        never_heard=Node.objects.filter(presence__isnull=True).count(),
        unknown=list(UnknownEndpoint.objects.order_by("-last_seen_at")[:6]),
        unknown_count=UnknownEndpoint.objects.count(),
    )


@dataclass(frozen=True)
class NodeFilter:
    """What the nodes page filters by; empty values do not filter. `text` is in the filter language."""

    text: str = ""
    campaign: int | None = None
    state: str = ""
    silent: bool = False


@dataclass(frozen=True)
class NodeRow:
    node: Node
    installed: ModelImage | None
    update: NodeUpdate | None


def filtered_nodes(wanted: NodeFilter, *, now: datetime) -> QuerySet[Node]:
    """Raises devices.query.QueryError."""
    rows = nodes_matching(wanted.text, now=now)
    if wanted.campaign or wanted.state:
        chosen = NodeUpdate.objects.filter(node=OuterRef("pk"))
        if wanted.campaign:
            chosen = chosen.filter(campaign_id=wanted.campaign)
        if wanted.state:
            chosen = chosen.filter(state=wanted.state)
        rows = rows.filter(Exists(chosen))
    if wanted.silent:
        rows = rows.filter(Exists(silent(now=now).filter(node=OuterRef("pk"))))
    return rows


def node_rows(wanted: NodeFilter, *, now: datetime, after: int = 0, limit: int = PAGE) -> list[NodeRow]:
    """By id, from above `after`; at most `limit`. Three queries however many nodes there are. Raises QueryError."""
    rows = filtered_nodes(wanted, now=now).select_related("profile", "presence").order_by("id")
    nodes = list(rows.filter(id__gt=after)[:limit])
    images = updates.images_by_prefix(node.active_digest for node in nodes)
    newest = updates.newest_updates([node.pk for node in nodes])
    return [NodeRow(node, images.get(node.active_digest[:8]), newest.get(node.pk)) for node in nodes]


@dataclass(frozen=True)
class Slot:
    """One of the two model slots, as the node last reported it."""

    role: str
    digest: str
    image: ModelImage | None
    slot_bytes: int

    @property
    def used_percent(self) -> float:
        return min(100.0, 100 * self.image.size / self.slot_bytes) if self.image else 0.0


@dataclass(frozen=True)
class Moment:
    """A line of a timeline."""

    at: datetime
    kind: str
    title: str
    detail: str
    campaign_id: int | None = None


@dataclass(frozen=True)
class NodePage:
    node: Node
    presence: NodePresence | None
    health: list[tuple[str, str]]
    health_at: datetime | None
    slots: list[Slot]
    memory: MemoryBar | None
    memory_image: ModelImage | None
    update: NodeUpdate | None
    misfit: Any
    is_silent: bool
    update_events: list[UpdateEvent] = field(default_factory=list)
    timeline: list[Moment] = field(default_factory=list)


def node_page(node_id: int, *, now: datetime) -> NodePage:
    """Raises Node.DoesNotExist."""
    node = Node.objects.select_related("profile", "firmware_build", "presence", "health").get(pk=node_id)
    presence, health = getattr(node, "presence", None), getattr(node, "health", None)
    slot_bytes = node.slot_bytes or node.profile.slot_bytes
    images = updates.images_by_prefix([node.active_digest, node.standby_digest])
    active = images.get(node.active_digest[:8])
    update = updates.newest_updates([node.pk]).get(node.pk)
    events = updates.events_of_node(node.pk)
    return NodePage(
        node=node,
        presence=presence,
        health=_health_lines(health.counters) if health else [],
        health_at=health.at if health else None,
        slots=[
            Slot("active", node.active_digest, active, slot_bytes),
            Slot("standby", node.standby_digest, images.get(node.standby_digest[:8]), slot_bytes),
        ],
        memory=_memory(node, active),
        memory_image=active,
        update=update,
        misfit=_misfit(node, active, update),
        is_silent=presence is not None and silent(now=now).filter(node=node).exists(),
        update_events=[event for event in events if update and event.node_update_id == update.pk],
        timeline=_timeline(node, events),
    )


def _memory(node: Node, image: ModelImage | None) -> MemoryBar | None:
    if image is None:
        return None
    sram = node.sram_bytes or node.profile.sram_bytes
    reserved = node.profile.reserved_sram_bytes if node.reserved_sram_bytes is None else node.reserved_sram_bytes
    return MemoryBar(reserved, image.arena_bytes, int((sram - reserved) * node.profile.arena_fraction), sram)


def _misfit(node: Node, active: ModelImage | None, update: NodeUpdate | None) -> Any:
    """The newest version's fit on this node's profile, where it does not fit and the node does not run it."""
    if update and update.campaign.version_id:
        family_id = update.campaign.version.family_id  # type: ignore[union-attr]
    elif active:
        family_id = active.version.family_id
    else:
        return None
    fit = updates.newest_fit(family_id=family_id, profile_id=node.profile_id)
    if fit is None or fit.fits or (active and fit.image.version_id == active.version_id):
        return None
    return fit


# Field of a health report, words, unit. Shares are of all inferences since activation.
_HEALTH_SHARES = {
    "low_confidence": "Low confidence",
    "out_of_bounds": "Inputs out of bounds",
    "fallbacks": "Fallback to the heuristic",
    "shadow_disagreements": "Shadow disagreements",
    "deadline_misses": "Deadline misses",
}
_HEALTH_VALUES = {
    "p99_latency_us": ("p99 latency", 1000, "ms"),
    "resets": ("Resets", 1, ""),
    "sample_rate_error_ppm": ("Sample-rate error", 10_000, "%"),
    "battery_mv": ("Battery", 1000, "V"),
}


def _health_lines(counters: dict[str, Any]) -> list[tuple[str, str]]:
    inferences = counters.get("inferences", 0)
    lines = [("Inferences", f"{inferences:,}")]
    for name, label in _HEALTH_SHARES.items():
        if name in counters:
            share = f", {100 * counters[name] / inferences:.2f} %" if inferences else ""
            lines.append((label, f"{counters[name]:,}{share}"))
    for name, (label, divisor, unit) in _HEALTH_VALUES.items():
        if counters.get(name) is not None:
            lines.append((label, f"{counters[name] / divisor:g} {unit}".strip()))
    return lines


def _timeline(node: Node, events: list[UpdateEvent], *, limit: int = 40) -> list[Moment]:
    """What the engine decided and what the link saw, newest first. Progress is left out: it would drown the rest."""
    seen = LinkEvent.objects.filter(node=node).exclude(kind=LinkEventKind.PROGRESS).order_by("-id")[:limit]
    moments = [_link_moment(event) for event in seen] + [
        Moment(
            event.at,
            event.to_state,
            f"{event.campaign.name}: {event.to_state}",
            causes.sentence(event.cause) if event.cause else "",
            event.campaign_id,
        )
        for event in events
    ]
    return sorted(moments, key=lambda moment: moment.at, reverse=True)[:limit]


def _link_moment(event: LinkEvent) -> Moment:
    detail = causes.sentence(event.cause) if event.cause else ""
    if event.kind == LinkEventKind.REPORT:
        return Moment(event.at, "link", "Node reported", _report_words(bytes(event.payload or b"")))
    if event.kind == LinkEventKind.HOLDS:
        return Moment(event.at, "link", "Node said what it runs", event.digest[:8] or "nothing")
    titles = {"offered": "Bundle offered", "delivered": "Bundle delivered", "failed": "Delivery failed"}
    return Moment(event.at, "link", titles.get(event.kind, event.kind), detail)


def _report_words(payload: bytes) -> str:
    if is_health_part(payload):
        return "a part of a health report"
    try:
        report = decode_state(payload)
    except WireError as error:
        return f"unreadable: {error}"
    cause = "" if report.cause == 0 else f" {causes.sentence(report.cause.label)}"
    return f"State {report.state.name.lower()}, runs {report.active_prefix.hex()}.{cause}"
