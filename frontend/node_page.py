"""What the page of one node shows."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from devices.models import Node, NodePresence
from frontend.node_list import BESIDE
from frontend.radio import Radio, radio_of
from frontend.selectors import silent
from frontend.svg import MemoryBar
from frontend.timeline import TimelinePage, timeline
from updates import selectors as updates
from updates.models import ModelImage, NodeUpdate, UpdateEvent


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
class NodePage:
    node: Node
    presence: NodePresence | None
    radio: Radio | None
    health: list[tuple[str, str]]
    health_at: datetime | None
    battery_volts: float
    slots: list[Slot]
    memory: MemoryBar | None
    memory_image: ModelImage | None
    update: NodeUpdate | None
    misfit: Any
    is_silent: bool
    update_events: list[UpdateEvent]
    timeline: TimelinePage


def node_page(
    node_id: int, *, now: datetime, people: bool, kind: str = "", before: dict[str, int] | None = None
) -> NodePage:
    """`kind`, `before` and `people` as in `timeline`. Raises Node.DoesNotExist."""
    node = Node.objects.select_related(*BESIDE, "firmware_build", "health").get(pk=node_id)
    presence, health = getattr(node, "presence", None), getattr(node, "health", None)
    slot_bytes = node.slot_bytes or node.profile.slot_bytes
    images = updates.images_by_prefix([node.active_digest, node.standby_digest])
    active = images.get(node.active_digest[:8])
    update = updates.update_to_show(node.pk)
    return NodePage(
        node=node,
        presence=presence,
        radio=radio_of(node),
        health=_health_lines(health.counters) if health else [],
        health_at=health.at if health else None,
        battery_volts=health.counters.get("battery_mv", 0) / 1000 if health else 0.0,
        slots=[
            Slot("active", node.active_digest, active, slot_bytes),
            Slot("standby", node.standby_digest, images.get(node.standby_digest[:8]), slot_bytes),
        ],
        memory=_memory(node, active),
        memory_image=active,
        update=update,
        misfit=_misfit(node, active, update),
        is_silent=presence is not None and silent(now=now).filter(node=node).exists(),
        update_events=updates.events_of_update(update) if update else [],
        timeline=timeline(node, kind=kind, before=before, people=people),
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
    "arena_used_bytes": ("Arena used", 1024, "KiB"),
}
# Zero says that the node did not measure it.
_NOT_MEASURED_AT_ZERO = ("p99_latency_us", "battery_mv", "arena_used_bytes")


def _health_lines(counters: dict[str, Any]) -> list[tuple[str, str]]:
    inferences = counters.get("inferences", 0)
    lines = [("Inferences", f"{inferences:,}")]
    for name, label in _HEALTH_SHARES.items():
        if name in counters:
            share = f", {100 * counters[name] / inferences:.2f} %" if inferences else ""
            lines.append((label, f"{counters[name]:,}{share}"))
    for name, (label, divisor, unit) in _HEALTH_VALUES.items():
        value = counters.get(name)
        if value or (value == 0 and name not in _NOT_MEASURED_AT_ZERO):
            lines.append((label, f"{value / divisor:g} {unit}".strip()))
    return lines
