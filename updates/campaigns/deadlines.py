"""When silence counts: the campaign's timer, or the node's own rhythm where that is slower.

A node that speaks every two days is not silent after one. Its deadline is three times its smoothed report interval, at
least the timer and at most 30 days of fleet time; the timers' defaults make that at least 48 h.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import connection

from fleet.clock import fleet_time

OFFER_TIMEOUT_S = 48 * 3600
PROGRESS_TIMEOUT_S = 48 * 3600
# Building takes seconds a patch; a queue of them, or a worker that was lost, takes longer.
PATCH_DEADLINE_S = 6 * 3600
MISSED_INTERVALS = 3
LONGEST = timedelta(days=30)

# SQL of a node update's deadline (table alias n) that counts from %(now)s; no timer, no deadline. Report intervals are
# measured on the wall, timers are fleet time.
DEADLINE = """
    %(now)s + make_interval(secs => GREATEST(%(timeout_s)s::float8, LEAST(%(longest_s)s::float8, %(missed)s * COALESCE(
        (SELECT p.report_interval_s FROM devices_nodepresence p WHERE p.node_id = n.node_id), 0))))
"""

_RENEW = f"""
UPDATE updates_nodeupdate n SET due_at = {DEADLINE} WHERE n.id = ANY(%(ids)s) AND n.state = ANY(%(states)s)
"""  # noqa: S608 - our own text


def arguments(*, now: datetime, timeout_s: float | None) -> dict[str, Any]:
    """Values for DEADLINE. `timeout_s`: fleet seconds."""
    return {
        "now": now,
        "timeout_s": None if timeout_s is None else timeout_s / settings.TIME_SCALE,
        "longest_s": fleet_time(LONGEST.total_seconds()).total_seconds(),
        "missed": MISSED_INTERVALS,
    }


def renew(ids: Sequence[int], *, states: Sequence[str], timeout_s: float, now: datetime) -> None:
    """Counts anew from now for those of `ids` that stand in one of `states`; one statement."""
    if ids:
        with connection.cursor() as cursor:
            values = {"ids": list(ids), "states": [str(state) for state in states]}
            cursor.execute(_RENEW, arguments(now=now, timeout_s=timeout_s) | values)


def stop(ids: Sequence[int], *, now: datetime) -> None:
    """Keeps what is left of each deadline: timers run in open windows only."""
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE updates_nodeupdate SET remaining_s = GREATEST(0, EXTRACT(EPOCH FROM due_at - %s)), due_at = NULL"
            " WHERE id = ANY(%s)",
            [now, list(ids)],
        )


def go_on(ids: Sequence[int], *, now: datetime) -> None:
    """Lets deadlines that `stop` has stopped run on."""
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE updates_nodeupdate SET due_at = %s + make_interval(secs => remaining_s), remaining_s = NULL"
            " WHERE id = ANY(%s) AND remaining_s IS NOT NULL",
            [now, list(ids)],
        )
