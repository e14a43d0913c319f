"""Work on versions and patches that any worker takes up under a lease: one that was killed loses its lease, never the work."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Generic, TypeVar

from django.db import connection, transaction
from django.db.models import Q, QuerySet

from updates.models import ModelVersion, Patch

LEASE = timedelta(minutes=2)
RENEW_EVERY_S = 20.0
MAXIMUM_ATTEMPTS = 3
Row = TypeVar("Row", ModelVersion, Patch)


@dataclass(frozen=True)
class Work(Generic[Row]):
    """What is done for each of the rows that wait, until they wait no more.

    `do` gets the row and a query for it: the number of the attempt fences, a worker that lost its lease finds none.
    `give_up` ends a row whose last attempt was lost too, in the transaction that finds it.
    """

    waiting: QuerySet[Row]
    do: Callable[[Row, QuerySet[Row], datetime], None]
    give_up: Callable[[Row], None]
    at_begin: Callable[[datetime], dict[str, Any]] = field(default=lambda now: {})


def work_off(work: Work[Row], now: datetime, limit: int) -> int:
    """Takes up to `limit` rows that wait, or whose worker was lost; returns how many it ended. Raises what `do` does."""
    for ended in range(limit):
        row, exhausted = _lease(work, now)
        if row is None:
            return ended
        if not exhausted:
            work.do(row, work.waiting.filter(pk=row.pk, attempts=row.attempts), now)
    return limit


def _lease(work: Work[Row], now: datetime) -> tuple[Row | None, bool]:
    """The next row, and whether it had no attempt left and has been given up."""
    with transaction.atomic():
        row = (
            work.waiting.select_for_update(skip_locked=True, of=("self",))
            .filter(Q(lease_until__isnull=True) | Q(lease_until__lt=now))
            .order_by("id")
            .first()
        )
        if row is None:
            return None, False
        if row.attempts >= MAXIMUM_ATTEMPTS:
            work.give_up(row)
            return row, True
        values = {"attempts": row.attempts + 1, "lease_until": now + LEASE, **work.at_begin(now)}
        for name, value in values.items():
            setattr(row, name, value)
        row.save(update_fields=list(values))
    return row, False


@contextmanager
def held(mine: QuerySet[ModelVersion], now: datetime) -> Iterator[Callable[[], datetime]]:
    """Renews the lease from a thread, for one stage may take longer than a lease lasts, and gives it back where the block
    raises: the next call tries again. Yields the clock that began at `now`."""
    began, done = time.monotonic(), threading.Event()

    def clock() -> datetime:
        return now + timedelta(seconds=time.monotonic() - began)

    def renew() -> None:
        try:
            while not done.wait(RENEW_EVERY_S):
                mine.update(lease_until=clock() + LEASE)
        finally:
            connection.close()

    thread = threading.Thread(target=renew, name="renew-lease", daemon=True)
    thread.start()
    try:
        yield clock
    except BaseException:
        mine.update(lease_until=now)
        raise
    finally:
        done.set()
        thread.join()
