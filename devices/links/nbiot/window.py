"""What the gateway does in one window of one node (docs/nbiot.md).

Every step may be the last one before the process is killed or the node sleeps: the next window begins again from
what PostgreSQL and the node say.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

import structlog
from aiocoap import GET, POST, PUT, Message
from django.utils import timezone

from devices import selectors
from devices.links.nbiot.registry import Session
from devices.links.nbiot.senml import BadPack, Report, state_report
from devices.links.nbiot.store import Store
from devices.models import OPEN_DELIVERY, UNPROVED, Delivery, DeliveryState, LinkEvent, LinkEventKind, LinkKind
from devices.wire import Cause, NodeState, StateReport, decode_state

log = structlog.get_logger(__name__)

TEXT, OPAQUE = 0, 42  # content formats of RFC 7252 12.3
AGENT_BASE, AGENT_REPORT, AGENT_COMMAND = "26241/0/0", "26241/0/2", "26241/0/3"
URI, UPDATE, STATE, RESULT, VERSION = "5/0/1", "5/0/2", "5/0/3", "5/0/5", "5/0/7"
# Object 5 (OMA registry, 5.xml): states, and the first result that is an error.
IDLE, DOWNLOADING, DOWNLOADED, UPDATING = range(4)
FIRST_ERROR_RESULT = 2
_DIGEST = re.compile("[0-9a-f]{64}")


class NodeAsleep(Exception):
    """No answer within the window: not a failure, the next window goes on."""


class Refused(Exception):
    """The node answered with an error code."""


class Radio(Protocol):
    """How a window talks to its node."""

    async def request(self, session: Session, message: Message) -> Message:
        """The answer. Raises NodeAsleep."""
        ...

    def bundle_address(self, token: str) -> str: ...

    def drop_transfer(self, token: str) -> None:
        """The token stands for another bundle now, or for none."""
        ...


def link_event(kind: LinkEventKind, node_id: int, *, at: datetime, **fields: object) -> LinkEvent:
    return LinkEvent(kind=kind, link=LinkKind.NBIOT, node_id=node_id, at=at, **fields)


def delivery_event(kind: LinkEventKind, delivery: Delivery, *, at: datetime, **fields: object) -> LinkEvent:
    return link_event(kind, delivery.node_id, at=at, delivery_id=delivery.pk, reference=delivery.reference, **fields)


class Window:
    """One visit to one node."""

    def __init__(self, session: Session, *, radio: Radio, store: Store) -> None:
        self._session, self._radio, self._store = session, radio, store

    async def visit(self, deliveries: Sequence[Delivery]) -> None:
        """Raises NodeAsleep and DatabaseDown; both leave everything as it was for the next window."""
        session = self._session
        await self._pass_on_reports()
        for delivery in deliveries:
            session.handled.add(delivery.pk)
        for delivery in deliveries:
            if delivery.command is not None:
                await self._bring_command(delivery)
        # Object 5 takes one package at a time: the next bundle waits until this one is closed.
        if bundles := [delivery for delivery in deliveries if delivery.command is None]:
            await self._bring_bundle(bundles[0])
        elif not session.registration.has_agent:
            await self._note_base()  # such a client never says by itself what it runs

    async def _pass_on_reports(self) -> None:
        session = self._session
        if session.read_state and session.registration.has_agent:
            # After a registration too: the report that a killed gateway had in its hands is not sent again.
            try:
                report = await self._read_report()
            except NodeAsleep:
                report = None  # what the node has sent must not wait for what it has not
            else:
                session.read_state = False
            if report is not None:
                session.reports.append(report.payload)
        while session.reports:
            payload = session.reports[0]
            events, cause = [], ""
            if decode_state(payload).state is NodeState.CONFIRMED:
                # Asleep before it could be asked: the report waits for the next window, a claim alone proves nothing.
                digest = await self._read_base()
                if digest is not None:
                    events.append(self._holds(digest))
                cause = "" if digest is not None else UNPROVED
            self._store.append(*events, self._event(LinkEventKind.REPORT, payload=payload, cause=cause))
            session.reports.pop(0)

    async def _read_report(self) -> Report | None:
        try:
            return state_report(await self._read(AGENT_REPORT, OPAQUE))
        except (BadPack, Refused) as error:
            log.warning("lwm2m.bad-report", node=self._session.node_id, reason=str(error))
            return None

    async def _note_base(self) -> str:
        """The base that the node runs; HOLDS where PostgreSQL has another one. Empty: the node cannot say."""
        digest = await self._read_base()
        if digest is not None and digest != self._session.holds:
            self._store.append(self._holds(digest))
        return digest or ""

    def _holds(self, digest: str) -> LinkEvent:
        self._session.holds = digest
        return self._event(LinkEventKind.HOLDS, digest=digest)

    async def _read_base(self) -> str | None:
        """The confirmed active image (64 hex digits); empty: there is none; None: the node does not say."""
        if self._session.registration.has_agent:
            try:
                raw = await self._read(AGENT_BASE, OPAQUE)
                if len(raw) in (0, 32):
                    return raw.hex()
                log.warning("lwm2m.bad-base", node=self._session.node_id, length=len(raw))
            except Refused as error:
                log.info("lwm2m.no-agent-base", node=self._session.node_id, reason=str(error))
        try:
            text = (await self._read(VERSION, TEXT)).decode("ascii", "replace").lower()
        except Refused:
            return None
        return text if not text or _DIGEST.fullmatch(text) else None

    async def _bring_command(self, delivery: Delivery) -> None:
        command = bytes(delivery.command or b"")
        try:
            await self._write(AGENT_COMMAND, command, OPAQUE)
        except Refused as error:
            # A command whose answer was lost is refused the second time: then the node says that it obeyed.
            report = await self._report_after_refusal()
            if report is not None and await self._is_trying(report):
                return  # in the middle of a trial there is nothing to revert yet: the next window asks again
            obeyed = report is not None and (report.state, report.cause) == (NodeState.REVERTED, Cause.COMMANDED)
            if not obeyed:
                log.info("lwm2m.command-refused", node=delivery.node_id, delivery=delivery.pk, reason=str(error))
                await self._close(delivery, LinkEventKind.FAILED, cause="command-refused")
                return
        await self._close(delivery, LinkEventKind.DELIVERED)

    async def _is_trying(self, report: StateReport) -> bool:
        told_to = report.state is NodeState.STAGED and await self._read_number(STATE) == UPDATING
        return told_to or report.state is NodeState.TRIAL

    async def _report_after_refusal(self) -> StateReport | None:
        report = await self._read_report()
        if report is None:
            return None
        self._store.append(self._event(LinkEventKind.REPORT, payload=report.payload))
        return decode_state(report.payload)

    async def _bring_bundle(self, delivery: Delivery) -> None:
        if delivery.state != DeliveryState.WAITING and not await self._may_offer_again(delivery):
            return
        self._session.holds = delivery.node.active_digest
        base = await self._note_base()
        if delivery.state == DeliveryState.TRANSFERRING and await self._has_switched(delivery, base):
            await self._close(delivery, LinkEventKind.DELIVERED)
            return
        bundle = await self._store.read(
            selectors.bundle_for_base, offering_id=delivery.offering_id or 0, base_digest=base
        )
        if bundle is None:
            await self._close(delivery, LinkEventKind.FAILED, cause="no-bundle-for-base", digest=base)
            return
        at, again = timezone.now(), delivery.bundle_id == bundle.pk
        offered = self._store.change(
            delivery,
            from_states=OPEN_DELIVERY,
            at=at,
            events=[] if again else [delivery_event(LinkEventKind.OFFERED, delivery, at=at, digest=base)],
            # Offered again, the state stays what it has become since it was read.
            **({} if again else {"state": DeliveryState.OFFERED, "bundle": bundle}),
        )
        if not await offered:
            return  # cancelled in the meantime
        self._session.offered_base[delivery.pk] = base
        if not again:
            self._radio.drop_transfer(delivery.token)
        address = self._radio.bundle_address(delivery.token).encode()
        try:
            await self._write(URI, address, TEXT)
        except Refused:
            # A package of an earlier, cancelled delivery is in the way: an empty address sets the object back.
            await self._write(URI, b"", TEXT)
            await self._write(URI, address, TEXT)
        log.info("lwm2m.offered", node=delivery.node_id, delivery=delivery.pk, base=base[:12], again=again)

    async def _may_offer_again(self, delivery: Delivery) -> bool:
        """Moves on by what Object 5 says; True where the node has lost its place or never begun."""
        state = await self._read_number(STATE)
        if state == IDLE and not self._session.registration.has_agent:
            result = await self._read_number(RESULT)
            if result >= FIRST_ERROR_RESULT:
                await self._close(delivery, LinkEventKind.FAILED, cause=f"object5-result-{result}")
                return False
        if state in (DOWNLOADED, UPDATING) and delivery.state != DeliveryState.TRANSFERRING:
            # Nothing of this delivery was pulled: the node has a package of an earlier one.
            return state == DOWNLOADED
        if state == DOWNLOADED:
            await self._execute(delivery)
        elif state == UPDATING:
            # It was told to, and the gateway did not live to write it down.
            await self._close(delivery, LinkEventKind.DELIVERED)
        return state == IDLE

    async def after_transfer(self, delivery: Delivery) -> bool:
        """Looks at the state once the last block is out; True when there is no more to wait for."""
        state = await self._read_number(STATE)
        if state == DOWNLOADING:
            return False
        if state == DOWNLOADED:
            await self._execute(delivery)
        return True

    async def _execute(self, delivery: Delivery) -> None:
        if not await self._store.read(selectors.may_switch, delivery_id=delivery.pk):
            return  # cancelled, or outside its activation window: the node keeps the package until a later window of its own
        answer = await self._radio.request(self._session, Message(code=POST, uri_path=UPDATE.split("/")))
        if answer.code.is_successful():
            await self._close(delivery, LinkEventKind.DELIVERED)
        else:
            log.warning("lwm2m.execute-refused", node=delivery.node_id, delivery=delivery.pk, code=str(answer.code))

    async def _has_switched(self, delivery: Delivery, base: str) -> bool:
        """Whether the node runs another image than when this delivery was offered: it took it, though nobody saw."""
        offered = self._session.offered_base.get(delivery.pk)
        if offered is None:
            offered = await self._store.read(
                selectors.base_last_offered_to, node_id=delivery.node_id, delivery_id=delivery.pk
            )
        return offered is not None and bool(base) and base != offered

    async def _close(self, delivery: Delivery, kind: LinkEventKind, **fields: object) -> None:
        at = timezone.now()
        state = DeliveryState.DELIVERED if kind is LinkEventKind.DELIVERED else DeliveryState.FAILED
        event = delivery_event(kind, delivery, at=at, **fields)
        closed = self._store.change(delivery, from_states=OPEN_DELIVERY, at=at, state=state, events=[event])
        if await closed:
            self._radio.drop_transfer(delivery.token)
            self._session.offered_base.pop(delivery.pk, None)
            log.info(f"lwm2m.{state.value}", node=delivery.node_id, delivery=delivery.pk, **fields)

    def _event(self, kind: LinkEventKind, **fields: object) -> LinkEvent:
        return link_event(kind, self._session.node_id, at=timezone.now(), **fields)

    async def _read(self, path: str, accept: int) -> bytes:
        message = Message(code=GET, uri_path=path.split("/"), accept=accept)
        return await self._succeed(message, path)

    async def _read_number(self, path: str) -> int:
        text = await self._read(path, TEXT)
        if not (text.isdigit() and len(text) <= 3):
            raise Refused(f"/{path}: {text[:16]!r} is not a number of up to 3 digits")
        return int(text)

    async def _write(self, path: str, payload: bytes, content_format: int) -> None:
        await self._succeed(
            Message(code=PUT, uri_path=path.split("/"), payload=payload, content_format=content_format), path
        )

    async def _succeed(self, message: Message, path: str) -> bytes:
        answer = await self._radio.request(self._session, message)
        if answer.code.is_successful():
            return bytes(answer.payload)
        # An answer of 5.xx says nothing of the request: a node without a cache of its answers gives 5.03 to a repeat.
        if answer.code.class_ == 5:
            raise NodeAsleep(f"/{path}: {answer.code}")
        raise Refused(f"/{path}: {answer.code}")
