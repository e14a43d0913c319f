"""Health reports come in parts, each in an event of its own; the newest whole one is kept beside the node."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime, timedelta

from devices.models import LinkEvent, LinkEventKind, NodeHealth
from devices.wire import PARTS_MAX, HealthAssembler, HealthReport, WireError, is_health_part

# Parts that took longer than this to come together belong to different reports with the same number.
WINDOW = timedelta(days=2)


def record_part(*, node_id: int, at: datetime) -> HealthReport | None:
    """The health report that the part which came at `at` completes, else None.

    Parts are read back from their events: which worker drained the others does not matter.
    """
    payloads = (
        LinkEvent.objects.filter(node=node_id, kind=LinkEventKind.REPORT, at__lte=at, at__gte=at - WINDOW)
        .order_by("-id")
        .values_list("payload", flat=True)[: 4 * PARTS_MAX]
    )
    parts = [bytes(payload) for payload in payloads if payload and is_health_part(bytes(payload))]
    if not parts:
        return None
    newest = parts[0][1:3]
    assembler, report = HealthAssembler(), None
    for part in reversed([part for part in parts if part[1:3] == newest]):
        try:
            report = assembler.add(part) or report
        except WireError:
            # A part that is broken by itself; the others may still make a whole.
            continue
    if report is not None:
        counters = {name: value for name, value in asdict(report).items() if name != "active_prefix"}
        NodeHealth.objects.update_or_create(node_id=node_id, defaults={"at": at, "counters": counters})
    return report
