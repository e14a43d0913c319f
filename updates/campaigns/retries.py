"""Another attempt after a failure that may pass: counted, and later each time. Sleep, pauses and cancels do not count."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from django.db import connection

from fleet.clock import fleet_time
from updates.campaigns.waves import position
from updates.models import NodeUpdate

FIRST_S = 900
LONGEST_S = 24 * 3600

_COUNT = """
UPDATE updates_nodeupdate n SET attempts = n.attempts + 1,
    not_before = CASE WHEN n.state = 'planned' THEN a.not_before END,
    received_bytes = CASE WHEN n.state = 'planned' THEN 0 ELSE n.received_bytes END
FROM unnest(%s::bigint[], %s::timestamptz[]) AS a(id, not_before) WHERE n.id = a.id
"""


def backoff_s(attempts: int, *, jitter: float) -> float:
    """Fleet seconds from the failure of attempt number `attempts` (from 1) to the next: 15 min doubled each time, at
    most a day, times 0.5 to 1.5 by `jitter` (0 to 1), so that nodes that failed together do not come together."""
    return float(min(FIRST_S * 2 ** (attempts - 1), LONGEST_S)) * (0.5 + jitter)


def count_attempts(ids: Sequence[int], *, now: datetime) -> None:
    """Counts a failed attempt of each; those that are planned again get the time before which they are not offered."""
    if not ids:
        return
    rows = (
        NodeUpdate.objects.filter(pk__in=ids).order_by("pk").values_list("pk", "attempts", "node_id", "campaign__salt")
    )
    times = []
    for _, attempts, node_id, salt in rows:
        # From the node and the attempt alone: who works the same failure off twice finds the same time.
        jitter = position(f"{salt}:{attempts}", node_id) / 2**64
        times.append(now + fleet_time(backoff_s(attempts + 1, jitter=jitter)))
    with connection.cursor() as cursor:
        cursor.execute(_COUNT, [[row[0] for row in rows], times])
