"""The nodes that a filter finds, as CSV rows made one at a time."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from django.db.models import QuerySet

from devices import node_csv
from devices.labels import format_labels
from devices.models import Node
from updates.models import ModelImage

# Rows that the database cursor hands over at once: memory does not grow with the nodes.
CHUNK = 1000


def csv_lines(nodes: QuerySet[Node]) -> Iterator[str]:
    """Header, then one line a node in order of id; an import takes them back."""
    yield node_csv.line([column.name for column in node_csv.COLUMNS])
    images = ModelImage.objects.select_related("version__family").order_by("id")
    versions = {image.digest[:8]: str(image.version) for image in images}
    rows = nodes.select_related("profile", "firmware_build", "presence").order_by("id")
    for node in rows.iterator(chunk_size=CHUNK):
        yield node_csv.line(_cells(node, versions))


def _cells(node: Node, versions: dict[str, str]) -> list[str]:
    presence = getattr(node, "presence", None)
    values = {
        "endpoint": node.endpoint,
        "link": node.link,
        "profile": node.profile.name,
        "firmware_build": node.firmware_build.name if node.firmware_build else "",
        "site": node.site,
        "labels": format_labels(node.labels),
        "time_zone": node.time_zone,
        "slot_bytes": node.slot_bytes,
        "sram_bytes": node.sram_bytes,
        "reserved_sram_bytes": node.reserved_sram_bytes,
        "installed": versions.get(node.active_digest[:8], ""),
        "active_digest": node.active_digest,
        "standby_digest": node.standby_digest,
        "last_seen_at": _utc(presence.last_seen_at) if presence else "",
        "report_interval_s": presence.report_interval_s if presence else None,
        "battery_percent": presence.battery_percent if presence else None,
        "registered_at": _utc(node.created_at),
    }
    return ["" if values[column.name] is None else str(values[column.name]) for column in node_csv.COLUMNS]


def _utc(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="seconds")
