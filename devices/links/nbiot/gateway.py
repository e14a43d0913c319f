"""The process that owns the UDP socket: what follows from what nodes say, and when nodes are spoken to."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import structlog
from aiocoap import Context, Message
from aiocoap.error import Error as CoapError
from aiocoap.numbers.constants import TransportTuning
from django.utils import timezone

from devices import selectors
from devices.links.nbiot.blocks import Block
from devices.links.nbiot.registry import Registration, Registry, Session
from devices.links.nbiot.senml import Report
from devices.links.nbiot.store import DatabaseDown, Store
from devices.links.nbiot.transfers import Transfer, Transfers
from devices.links.nbiot.window import NodeAsleep, Refused, Window, delivery_event, link_event
from devices.models import Delivery, DeliveryState, LinkEventKind, LinkKind, Node
from devices.services import Sighting, record_unknown_endpoint

log = structlog.get_logger(__name__)

# RFC 7252 MAX_TRANSMIT_WAIT, for which a node in queue mode stays awake (LwM2M Core 6.5); what real servers assume too.
AWAKE_S = 93.0
# Real sockets and processors do not run faster with simulated time.
AWAKE_LEAST_S = 3.0
# NB-IoT round trips reach 10 s, where 2 s make spurious repeats (RFC 7252 4.8); two repeats fit the window.
ACK_TIMEOUT_S, ACK_TIMEOUT_LEAST_S, REPEATS_MAX = 10.0, 0.5, 2
# The cost of an exchange grows with those under way: 1.2 ms at 500, 10 ms at 5000 (measured).
IN_FLIGHT_MAX = 1000
POLL_S = 1.0
HEARTBEAT_S = 60.0
# The answer to the node leaves before the first request to it, and wake-ups share one query.
GATHER_S = 0.02
COMMIT_WAIT_S = 10.0
RECHECK_S = (0.1, 0.3, 1.0, 3.0, 10.0)
UNKNOWN_A_SECOND = 20


class UnknownNode(Exception):
    """No node has this endpoint name."""


class Gateway:
    """Made and used in one event loop. `awake_s`: real seconds that a node listens after its last exchange."""

    def __init__(self, *, public: str, time_scale: float = 1.0, awake_s: float | None = None) -> None:
        self._public = public
        self._awake_s = awake_s if awake_s is not None else max(AWAKE_S / time_scale, AWAKE_LEAST_S)
        tuning = TransportTuning()
        tuning.ACK_TIMEOUT = max(ACK_TIMEOUT_S / time_scale, ACK_TIMEOUT_LEAST_S)
        tuning.MAX_RETRANSMIT = REPEATS_MAX
        self._tuning = tuning
        self.store = Store()
        self.registry = Registry(awake_s=self._awake_s, time_scale=time_scale)
        self.transfers = Transfers(self.store)
        # Set when aiocoap's own tables contradict each other: some nodes can no longer be spoken to by this process.
        self.broken = asyncio.Event()
        self._context: Context
        self._in_flight = asyncio.Semaphore(IN_FLIGHT_MAX)
        self._due: set[Session] = set()
        self._wake = asyncio.Event()
        self._unknown_second, self._unknown_count = 0, 0
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, context: Context) -> None:
        """From now on requests leave through `context`."""
        self._context = context
        for work in (self._dispatch(), self._poll(), self._heartbeat()):
            self._spawn(work)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.store.close()

    # What nodes say

    async def register(self, registration: Registration, remote: Any) -> Session:
        """Raises UnknownNode and DatabaseDown."""
        node: Node | None = await self.store.read(
            selectors.node_by_endpoint, link=LinkKind.NBIOT, endpoint=registration.endpoint
        )
        if node is None:
            await self._note_unknown(registration.endpoint, remote.hostinfo)
            raise UnknownNode(registration.endpoint)
        session = self.registry.register(
            node_id=node.pk, registration=registration, remote=remote, holds=node.active_digest, now=time.monotonic()
        )
        log.info("lwm2m.registered", endpoint=registration.endpoint, node=node.pk, address=remote.hostinfo)
        self._opened(session)
        return session

    def update(self, session: Session, remote: Any, query: Sequence[str], *, agent: bool | None) -> None:
        """Raises BadRegistration."""
        self.registry.update(session, remote=remote, query=query, now=time.monotonic())
        if agent is not None:
            session.registration = replace(session.registration, has_agent=agent)
        self._opened(session)

    async def reported(self, session: Session, reports: Sequence[Report]) -> None:
        """Ends when the reports are kept for good, so that 2.04 lets the node forget them. Raises DatabaseDown.

        A `confirmed` first waits for the digest, which is read from the node after its answer; if this process dies
        in between, the node registers again and is asked for its report.
        """
        self.registry.open_window(session, now=time.monotonic())
        self._opened(session)
        session.reports.extend(report.payload for report in reports if report.confirmed)
        at = timezone.now()
        events = [
            link_event(LinkEventKind.REPORT, session.node_id, at=at, payload=report.payload)
            for report in reports
            if not report.confirmed
        ]
        if events:
            await self._committed(self.store.append(*events))

    async def _committed(self, done: asyncio.Future[bool]) -> None:
        try:
            await asyncio.wait_for(asyncio.shield(done), COMMIT_WAIT_S)
        except TimeoutError as error:
            raise DatabaseDown(f"not committed within {COMMIT_WAIT_S:.0f} s") from error

    async def served(self, transfer: Transfer, block: Block) -> None:
        """A block is about to leave. Raises DatabaseDown.

        The first one waits until PostgreSQL knows: a node that has a package although its delivery never began to
        transfer has an earlier one, and that must hold after a kill too.
        """
        delivery, at = transfer.delivery, timezone.now()
        if not transfer.begun:
            begun = self.store.change(
                delivery, from_states=[DeliveryState.OFFERED], at=at, state=DeliveryState.TRANSFERRING
            )
            await self._committed(begun)
            transfer.begun = True
        session = self.registry.by_node.get(delivery.node_id)
        if session is not None:
            self.registry.heard(session, now=time.monotonic())
            self._seen(session)
        self.store.sent(delivery_id=delivery.pk, count=len(block.payload))
        if transfer.advance(block.offset + len(block.payload)):
            self.store.append(
                delivery_event(
                    LinkEventKind.PROGRESS,
                    delivery,
                    at=at,
                    received_bytes=transfer.received,
                    total_bytes=len(transfer.body),
                )
            )
        if not block.more and session is not None:
            self._spawn(self._after_transfer(session, delivery))

    async def _note_unknown(self, endpoint: str, address: str) -> None:
        second = int(time.monotonic())
        if second != self._unknown_second:
            self._unknown_second, self._unknown_count = second, 0
        self._unknown_count += 1
        if self._unknown_count > UNKNOWN_A_SECOND:
            return  # a flood of names must not keep the database from the nodes; the row counts are a hint
        log.info("lwm2m.unknown-endpoint", endpoint=endpoint, address=address)
        await self.store.read(
            record_unknown_endpoint, link=LinkKind.NBIOT, endpoint=endpoint, address=address, now=timezone.now()
        )

    def _opened(self, session: Session) -> None:
        self._seen(session)
        self._due.add(session)
        self._wake.set()

    def _seen(self, session: Session) -> None:
        at = timezone.now()
        self.store.saw(
            Sighting(
                node_id=session.node_id,
                seen_at=at,
                awake_until=at + timedelta(seconds=self._awake_s),
                address=session.remote.hostinfo,
            )
        )

    # What nodes are told

    async def request(self, session: Session, message: Message) -> Message:
        """One exchange, inside the window only. Raises NodeAsleep."""
        async with self._in_flight:
            left = session.awake_until - time.monotonic()
            if left <= 0:
                raise NodeAsleep("the window is over")
            message.remote = session.remote.as_response_address()
            message.transport_tuning = self._tuning
            try:
                # aiocoap waits for ever for a separate response that never comes. All values are small: no blocks.
                answer = await asyncio.wait_for(self._context.request(message, handle_blockwise=False).response, left)
            except (TimeoutError, CoapError, OSError) as error:
                raise NodeAsleep(repr(error)) from error
            except AssertionError as error:
                # aiocoap 0.4.17 believes for ever that an exchange with this node is under way (seen under overload).
                # All truth is in PostgreSQL: a new process costs each node one registration.
                log.critical("lwm2m.broken", node=session.node_id, exc_info=error)
                self.broken.set()
                raise NodeAsleep("this gateway has to start again") from error
        self.registry.heard(session, now=time.monotonic())
        return answer

    def bundle_address(self, token: str) -> str:
        return f"coap://{self._public}/b/{token}"

    def drop_transfer(self, token: str) -> None:
        self.transfers.drop(token)

    async def _after_transfer(self, session: Session, delivery: Delivery) -> None:
        """The node needs a moment to look at what it got before it says that it is there."""
        window = Window(session, radio=self, store=self.store)
        try:
            for pause_s in RECHECK_S:
                await asyncio.sleep(pause_s)
                async with session.busy:
                    if await window.after_transfer(delivery):
                        return
        except (NodeAsleep, Refused, DatabaseDown) as error:
            log.info("lwm2m.window-ended", node=session.node_id, reason=str(error))

    async def _dispatch(self) -> None:
        while True:
            await self._wake.wait()
            await asyncio.sleep(GATHER_S)
            self._wake.clear()
            due = {session for session in self._due if not session.visited}
            if not due:
                continue
            self._due -= due
            try:
                await self._visit_all(due)
            except DatabaseDown as error:
                log.warning("lwm2m.database-down", reason=str(error))
                self._due |= due  # the next poll wakes this loop again

    async def _visit_all(self, sessions: set[Session]) -> None:
        by_node: dict[int, list[Delivery]] = {session.node_id: [] for session in sessions}
        found = await self.store.read(lambda: list(selectors.open_deliveries(link=LinkKind.NBIOT, nodes=list(by_node))))
        for delivery in found:
            by_node[delivery.node_id].append(delivery)
        for session in sessions:
            deliveries = [item for item in by_node[session.node_id] if item.pk not in session.handled]
            if self.registry.by_location.get(session.location) is session and (
                deliveries or session.read_state or session.reports or not session.registration.has_agent
            ):
                session.visit = self._spawn(self._visit(session, deliveries))

    async def _visit(self, session: Session, deliveries: Sequence[Delivery]) -> None:
        try:
            async with session.busy:
                await Window(session, radio=self, store=self.store).visit(deliveries)
        except (NodeAsleep, Refused, DatabaseDown) as error:
            log.info("lwm2m.window-ended", node=session.node_id, reason=str(error))
        finally:
            if session in self._due:
                self._wake.set()

    async def _poll(self) -> None:
        """What changed in PostgreSQL while nodes are awake: new deliveries, and those that were cancelled."""
        while True:
            await asyncio.sleep(POLL_S)
            now = time.monotonic()
            if expired := self.registry.expire(now=now):
                log.info("lwm2m.expired", registrations=expired)
            if self._due:
                self._wake.set()
            try:
                awake = {session.node_id: session for session in self.registry.awake(now=now) if not session.visited}
                news = {
                    awake[node_id]
                    for node_id, delivery in await self._open_ids(list(awake))
                    if delivery not in awake[node_id].handled
                }
                if news:
                    self._due |= news
                    self._wake.set()
                asked = self.transfers.deliveries()
                if asked:
                    self.transfers.keep_only(
                        await self.store.read(selectors.open_bundles, deliveries=asked), asked=asked
                    )
            except DatabaseDown as error:
                log.warning("lwm2m.database-down", reason=str(error))

    async def _open_ids(self, nodes: list[int]) -> list[tuple[int, int]]:
        if not nodes:
            return []
        return await self.store.read(
            lambda: list(selectors.open_deliveries(link=LinkKind.NBIOT, nodes=nodes).values_list("node_id", "pk"))
        )

    async def _heartbeat(self) -> None:
        while True:
            log.info(
                "lwm2m.alive",
                registered=len(self.registry.by_location),
                awake=len(self.registry.awake(now=time.monotonic())),
                unwritten=self.store.pending,
            )
            await asyncio.sleep(HEARTBEAT_S)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.error("lwm2m.task-failed", exc_info=error)
