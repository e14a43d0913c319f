"""Health reports come in parts, each in an event of its own; the newest whole one is kept beside the node."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timedelta

from django.db import connection

from devices.models import NodeHealth
from devices.wire import PARTS_MAX, HealthAssembler, HealthReport, WireError, is_health_part

# Parts that took longer than this to come together belong to different reports with the same number.
WINDOW = timedelta(days=2)


_PARTS = """
SELECT n.id, e.payload FROM unnest(%s::bigint[], %s::timestamptz[]) AS h (node_id, at)
JOIN devices_node n ON n.id = h.node_id
CROSS JOIN LATERAL (
    SELECT id, payload FROM devices_linkevent
    WHERE node_id = h.node_id AND kind = 'report' AND at <= h.at AND at >= h.at - make_interval(secs => %s)
    ORDER BY id DESC LIMIT %s
) e ORDER BY n.id, e.id DESC
"""


def record_parts(*, came: Mapping[int, datetime]) -> int:
    """Keeps the health reports that parts which came complete: when, by node id. How many; nodes that are gone have none.

    Parts are read back from their events: which worker drained the others does not matter. Two statements.
    """
    if not came:
        return 0
    parts: defaultdict[int, list[bytes]] = defaultdict(list)
    with connection.cursor() as cursor:
        cursor.execute(_PARTS, [list(came), list(came.values()), WINDOW.total_seconds(), 4 * PARTS_MAX])
        for node_id, payload in cursor.fetchall():
            if payload and is_health_part(bytes(payload)):
                parts[node_id].append(bytes(payload))
    reports = {node_id: report for node_id in sorted(parts) if (report := _newest_whole(parts[node_id])) is not None}
    NodeHealth.objects.bulk_create(
        (NodeHealth(node_id=node_id, at=came[node_id], counters=_counters(one)) for node_id, one in reports.items()),
        update_conflicts=True,
        unique_fields=["node"],
        update_fields=["at", "counters"],
    )
    return len(reports)


def _newest_whole(parts: Sequence[bytes]) -> HealthReport | None:
    """The report that the newest part belongs to, if its parts are all there; `parts` newest first."""
    newest = parts[0][1:3]
    assembler, report = HealthAssembler(), None
    for part in reversed([part for part in parts if part[1:3] == newest]):
        try:
            report = assembler.add(part) or report
        except WireError:
            # A part that is broken by itself; the others may still make a whole.
            continue
    return report


def _counters(report: HealthReport) -> dict[str, object]:
    """With the image that they speak of: its first 4 bytes in hex."""
    return asdict(report) | {"active_prefix": report.active_prefix.hex()}
