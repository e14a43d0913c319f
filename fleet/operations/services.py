"""Writes what the product knows of itself. Each is one statement, safe from any number of processes."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

from django.db import connection

from fleet.operations.models import Count, Heartbeat, LastRun, ProcessKind

# A process that was killed is shown as dead this long, then its row goes with the next beat of any other.
FORGET_AFTER = timedelta(hours=1)
# Upper bounds in seconds of the buckets in which builds are counted; the last, +Inf, is the count itself.
BUILD_BUCKETS_S = (0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
COUNT_OF, SUM_OF = "+Inf", "sum"


def beat(*, kind: ProcessKind, name: str, serves: str, started_at: datetime, now: datetime) -> None:
    """Says that this process is alive."""
    Heartbeat.objects.bulk_create(
        [Heartbeat(kind=kind, name=name[:100], serves=serves, started_at=started_at, beat_at=now)],
        update_conflicts=True,
        unique_fields=["kind", "name"],
        update_fields=["serves", "started_at", "beat_at"],
    )
    Heartbeat.objects.filter(beat_at__lt=now - FORGET_AFTER).delete()


def leave(*, kind: ProcessKind, name: str) -> None:
    """A process that ends as it should is not missed."""
    Heartbeat.objects.filter(kind=kind, name=name[:100]).delete()


def ran(*, durations_s: Mapping[str, float], now: datetime) -> None:
    """Notes that each piece of work named has just ended, and how many seconds it took."""
    LastRun.objects.bulk_create(
        [LastRun(name=name, at=now, duration_s=seconds) for name, seconds in sorted(durations_s.items())],
        update_conflicts=True,
        unique_fields=["name"],
        update_fields=["at", "duration_s"],
    )


def count(name: str, changes: Mapping[tuple[str, str], float]) -> None:
    """Raises counters of `name` by what each pair of labels got. Rows are taken in one order, so that nobody deadlocks."""
    keys = sorted(key for key, change in changes.items() if change)
    if not keys:
        return
    table = Count._meta.db_table
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {table} AS c (name, first, second, value)"  # noqa: S608 - our own table
            " SELECT %s, * FROM unnest(%s::text[], %s::text[], %s::float8[])"
            " ON CONFLICT (name, first, second) DO UPDATE SET value = c.value + excluded.value",
            [name, [key[0] for key in keys], [key[1] for key in keys], [float(changes[key]) for key in keys]],
        )


def observe(name: str, label: str, seconds: float) -> None:
    """Adds one duration to the histogram `name` of `label`."""
    buckets = [f"{bound:g}" for bound in BUILD_BUCKETS_S if seconds <= bound]
    count(name, {(label, bucket): 1.0 for bucket in [*buckets, COUNT_OF]} | {(label, SUM_OF): max(seconds, 1e-9)})
