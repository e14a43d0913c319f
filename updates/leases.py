"""Work on model versions that any worker takes up under a lease: one that was killed loses its lease, never the work."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.db import connection, transaction
from django.db.models import Q, QuerySet

from updates.models import ModelVersion

LEASE = timedelta(minutes=2)
RENEW_EVERY_S = 20.0
MAXIMUM_ATTEMPTS = 3


@dataclass(frozen=True)
class Work:
    """What is done for versions that `waiting` finds, until it finds them no more.

    `do` gets the version and its own rows: the number of the attempt fences, a worker that lost its lease writes to none.
    `give_up` ends a version whose last attempt was lost too, in the transaction that finds it.
    """

    waiting: Q
    do: Callable[[ModelVersion, QuerySet[ModelVersion], datetime], None]
    give_up: Callable[[ModelVersion], None]
    at_begin: Callable[[datetime], dict[str, Any]] = field(default=lambda now: {})


def work_off(work: Work, now: datetime, limit: int) -> int:
    """Takes up to `limit` versions that wait, or whose worker was lost; returns how many it ended. Raises what `do` does."""
    for ended in range(limit):
        version, exhausted = _lease(work, now)
        if version is None:
            return ended
        if not exhausted:
            work.do(version, ModelVersion.objects.filter(work.waiting, pk=version.pk, attempts=version.attempts), now)
    return limit


def _lease(work: Work, now: datetime) -> tuple[ModelVersion | None, bool]:
    """The next version, and whether it had no attempt left and has been given up."""
    with transaction.atomic():
        version = (
            ModelVersion.objects.select_for_update(skip_locked=True, of=("self",))
            .select_related("family")
            .filter(work.waiting)
            .filter(Q(lease_until__isnull=True) | Q(lease_until__lt=now))
            .order_by("id")
            .first()
        )
        if version is None:
            return None, False
        if version.attempts >= MAXIMUM_ATTEMPTS:
            work.give_up(version)
            return version, True
        values = {"attempts": version.attempts + 1, "lease_until": now + LEASE, **work.at_begin(now)}
        for name, value in values.items():
            setattr(version, name, value)
        version.save(update_fields=list(values))
    return version, False


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
