"""PostgreSQL for an asyncio process: reads in one thread, writes gathered and committed in order in another.

What the gateway saw stays in memory until it is committed, through restarts of the database. A batch whose
commit was answered by a broken connection is written again: events are at least once, and readers expect that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar

import structlog
from django.db import DatabaseError, InterfaceError, OperationalError, connection, transaction

from devices.models import Delivery, LinkEvent
from devices.services import Sighting, add_bytes_sent, append_events, record_presence

log = structlog.get_logger(__name__)
Result = TypeVar("Result")

# Presence and byte counts wait for company; what somebody waits for goes as soon as the last batch is done.
LINGER_S, URGENT_LINGER_S = 0.2, 0.01
RETRY_S = 0.5
PENDING_MAX = 50_000
_CONNECTION_ERRORS = (OperationalError, InterfaceError)


class DatabaseDown(Exception):
    """PostgreSQL does not answer, or too much waits for it already."""


@dataclass(eq=False)
class Write:
    """Events, and the compare-and-swap of a delivery on which they depend, if any."""

    events: Sequence[LinkEvent] = ()
    delivery_id: int | None = None
    from_states: Sequence[str] = ()
    fields: Mapping[str, Any] = field(default_factory=dict)
    done: asyncio.Future[bool] | None = None


@dataclass
class _Batch:
    writes: list[Write]
    sightings: dict[int, Sighting]
    bytes_sent: dict[int, int]


def _commit(batch: _Batch) -> list[bool]:
    """One transaction; which writes took place. Deliveries are locked in key order first, as cancelling does."""
    with transaction.atomic():
        touched = {
            write.delivery_id for write in batch.writes if write.delivery_id is not None
        } | batch.bytes_sent.keys()
        if touched:
            list(
                Delivery.objects.filter(pk__in=touched).order_by("pk").select_for_update(no_key=True).values_list("pk")
            )
        won = [
            write.delivery_id is None
            or Delivery.objects.filter(pk=write.delivery_id, state__in=write.from_states).update(**write.fields) == 1
            for write in batch.writes
        ]
        events = [event for write, wrote in zip(batch.writes, won, strict=True) if wrote for event in write.events]
        if events:
            append_events(events)
        if batch.bytes_sent:
            add_bytes_sent(counts=batch.bytes_sent)
        if batch.sightings:
            record_presence(sightings=list(batch.sightings.values()))
    return won


def _disconnect() -> None:
    connection.close()  # of the thread that calls


class Store:
    """Made and used in one event loop."""

    def __init__(self) -> None:
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="lwm2m-read")
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="lwm2m-write")
        self._pending = _Batch([], {}, {})
        self._anything, self._urgent = asyncio.Event(), asyncio.Event()
        self._closing = False
        self._task = asyncio.get_running_loop().create_task(self._write_for_ever(), name="lwm2m-writer")

    async def read(self, query: Callable[..., Result], *args: Any, **kwargs: Any) -> Result:
        """Runs `query` in the reading thread; it must not return a lazy query set. Raises DatabaseDown."""
        for attempt in (1, 2):  # a second time for the connection that died since it was last used
            try:
                return await self._run(self._reader, lambda: query(*args, **kwargs))
            except _CONNECTION_ERRORS as error:
                if attempt == 2:
                    raise DatabaseDown(type(error).__name__) from error
        raise AssertionError("unreachable")

    def append(self, *events: LinkEvent) -> asyncio.Future[bool]:
        """Appends events in the order of calls. The future ends when they are committed."""
        return self._add(Write(events=events))

    def change(
        self,
        delivery: Delivery,
        *,
        from_states: Sequence[str],
        at: datetime,
        events: Sequence[LinkEvent] = (),
        **fields: Any,
    ) -> asyncio.Future[bool]:
        """Changes an open delivery and appends the events in the same transaction; False and neither where it is
        in no such state any more."""
        return self._add(
            Write(events=events, delivery_id=delivery.pk, from_states=from_states, fields={**fields, "updated_at": at})
        )

    def saw(self, sighting: Sighting) -> None:
        self._pending.sightings[sighting.node_id] = sighting
        self._anything.set()

    def sent(self, *, delivery_id: int, count: int) -> None:
        self._pending.bytes_sent[delivery_id] = self._pending.bytes_sent.get(delivery_id, 0) + count
        self._anything.set()

    @property
    def pending(self) -> int:
        return len(self._pending.writes)

    async def close(self) -> None:
        """Writes what is left, for at most five seconds."""
        self._closing = True
        self._anything.set()
        self._urgent.set()
        try:
            await asyncio.wait_for(self._task, 5)
        except TimeoutError:
            log.error("lwm2m.unwritten", writes=self.pending)
        for executor in (self._reader, self._writer):
            await asyncio.get_running_loop().run_in_executor(executor, _disconnect)
            executor.shutdown(wait=False)

    def _add(self, write: Write) -> asyncio.Future[bool]:
        if self.pending >= PENDING_MAX:
            raise DatabaseDown(f"{self.pending} writes wait already")
        write.done = asyncio.get_running_loop().create_future()
        # Nobody has to wait for it: without this an exception that nobody fetched would be logged as an error twice.
        write.done.add_done_callback(lambda future: future.cancelled() or future.exception())
        self._pending.writes.append(write)
        self._anything.set()
        self._urgent.set()
        return write.done

    async def _run(self, executor: ThreadPoolExecutor, call: Callable[[], Result]) -> Result:
        def guarded() -> Result:
            try:
                return call()
            except _CONNECTION_ERRORS:
                connection.close()
                raise

        return await asyncio.get_running_loop().run_in_executor(executor, guarded)

    async def _write_for_ever(self) -> None:
        while True:
            await self._anything.wait()
            try:
                await asyncio.wait_for(self._urgent.wait(), LINGER_S)
                await asyncio.sleep(URGENT_LINGER_S)
            except TimeoutError:
                pass  # nobody waits for this batch: it has gathered for long enough
            batch, self._pending = self._pending, _Batch([], {}, {})
            self._anything.clear()
            self._urgent.clear()
            await self._write(batch)
            if self._closing and not (self._pending.writes or self._pending.sightings or self._pending.bytes_sent):
                return

    async def _write(self, batch: _Batch) -> None:
        while True:
            try:
                won = await self._run(self._writer, lambda: _commit(batch))
            except _CONNECTION_ERRORS as error:
                log.warning("lwm2m.database-down", error=type(error).__name__, writes=len(batch.writes))
                await asyncio.sleep(RETRY_S)
            except (DatabaseError, ValueError) as error:
                await self._write_apart(batch, error)
                return
            else:
                for write, wrote in zip(batch.writes, won, strict=True):
                    _finish(write, wrote)
                return

    async def _write_apart(self, batch: _Batch, error: Exception) -> None:
        """One row that PostgreSQL refuses must not hold up the others."""
        parts = [_Batch([write], {}, {}) for write in batch.writes]
        parts += [_Batch([], {key: sighting}, {}) for key, sighting in batch.sightings.items()]
        parts += [_Batch([], {}, {key: count}) for key, count in batch.bytes_sent.items()]
        if len(parts) > 1:
            for part in parts:
                await self._write(part)
            return
        log.error("lwm2m.write-refused", error=str(error), batch=repr(batch))
        for write in batch.writes:
            _finish(write, False)


def _finish(write: Write, wrote: bool) -> None:
    if write.done is not None and not write.done.done():
        write.done.set_result(wrote)
