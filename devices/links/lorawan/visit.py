"""What a node's queue should get next, decided with its row locked and written down before a frame leaves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache

import structlog

from devices import selectors
from devices.links.lorawan import fragmentation, frames
from devices.links.lorawan.chirpstack import QueueItem
from devices.links.lorawan.fragmentation import Block, Dialect, FragmentationError
from devices.links.lorawan.hearing import ACCEPTED, downlink_limit
from devices.links.lorawan.models import CommandExchange, FragmentSession, LoRaWanDevice, SessionStage
from devices.links.lorawan.outcomes import close, delivery_event, node_event, restart
from devices.links.lorawan.regions import FRAGMENT_HEADER_BYTES
from devices.models import (
    OPEN_DELIVERY,
    UNPROVED,
    Delivery,
    DeliveryState,
    LinkEvent,
    LinkEventKind,
    LinkKind,
    OfferedBundle,
)
from fleet.blobs.models import load

log = structlog.get_logger(__name__)

# Frames ahead in ChirpStack's queue: topped up to the one where fewer than the other are left.
AHEAD, AHEAD_LEAST = 8, 5
# The uplink after the one that fetched a request brings the answer, or shows that something was lost.
ANSWER_UPLINKS = 2
# A request goes twice: the second is there at once where the first was lost, and makes the node poll (FPending).
COPIES = 2
# At 40 % loss each way one request in three is answered: so many in a row without an answer are no bad luck.
ATTEMPTS_MAX = 20
ASKS_MAX = 8
# How often progress is told, in parts of the whole.
PROGRESS_PARTS = 20


@dataclass
class Frame:
    port: int
    data: bytes
    confirmed: bool = False
    delivery_id: int | None = None
    number: int = 0  # of a fragment


@dataclass
class Visit:
    """`work` appends to `frames` and `events`, and changes the device's row, which its caller saves."""

    device: LoRaWanDevice
    queue: Sequence[QueueItem]
    now: datetime
    frames: list[Frame] = field(default_factory=list)
    events: list[LinkEvent] = field(default_factory=list)

    def work(self) -> bool:
        """Whether there is anything left to do for this node."""
        deliveries = list(
            Delivery.objects.filter(link=LinkKind.LORAWAN, node_id=self.device.pk, state__in=OPEN_DELIVERY)
            .select_related("node__firmware_build", "session", "exchange")
            .order_by("pk")
        )
        for delivery in deliveries:
            if delivery.command is not None:
                self._command(delivery)
        needs_base = False
        # A node has memory for one session: the next bundle waits until this one is closed.
        if bundle := next((delivery for delivery in deliveries if delivery.command is None), None):
            needs_base = self._bundle(bundle)
        self._ask(needed=needs_base or self.device.claim is not None)
        return bool(deliveries) or self.device.claim is not None

    def _is_unanswered(self, asked_uplink: int | None, *, queued: bool) -> bool:
        """Whether a request must go (again): never asked, or it left the queue and uplinks came without an answer."""
        return asked_uplink is None or (not queued and self.device.uplinks >= asked_uplink + ANSWER_UPLINKS)

    def _queued(self, port: int, data: bytes) -> bool:
        return any(item.port == port and item.data == data for item in self.queue)

    # Commands

    def _command(self, delivery: Delivery) -> None:
        exchange = getattr(delivery, "exchange", None) or CommandExchange(delivery=delivery)
        data = bytes(delivery.command or b"")
        queued = self._queued(frames.PORT, data)
        acknowledged = exchange.acknowledged_uplink
        if acknowledged is not None and self.device.uplinks >= acknowledged + ANSWER_UPLINKS:
            self.events += close(self.device, delivery, LinkEventKind.DELIVERED, at=self.now)  # its answer was lost
        elif queued:
            exchange.asked_uplink = self.device.uplinks
        elif acknowledged is None and self._is_unanswered(exchange.asked_uplink, queued=queued):
            if exchange.attempts >= ATTEMPTS_MAX:
                self.events += close(self.device, delivery, LinkEventKind.FAILED, at=self.now, cause="no-answer")
            else:
                exchange.attempts += 1
                exchange.asked_uplink = self.device.uplinks
                self.frames.append(Frame(frames.PORT, data, confirmed=True, delivery_id=delivery.pk))
        exchange.save()

    # What the node holds

    def _ask(self, *, needed: bool) -> None:
        device = self.device
        if not needed:
            return
        queued = self._queued(frames.PORT, frames.ASK)
        if queued:
            device.asked_uplink = device.uplinks
        elif self._is_unanswered(device.asked_uplink, queued=queued):
            if device.asks >= ASKS_MAX:
                self._give_up_asking()
                return
            device.asks += 1
            device.asked_uplink = device.uplinks
            self.frames.append(Frame(frames.PORT, frames.ASK))

    def _give_up_asking(self) -> None:
        """It claims success and never proves it: told so, which decides nothing."""
        if self.device.claim is None:
            return
        payload, self.device.claim = bytes(self.device.claim), None
        self.device.asks, self.device.asked_uplink = 0, None
        self.events.append(
            node_event(LinkEventKind.REPORT, self.device.pk, at=self.now, payload=payload, cause=UNPROVED)
        )

    # Bundles

    def _bundle(self, delivery: Delivery) -> bool:
        """Whether the node must be asked for what it holds."""
        session = getattr(delivery, "session", None) or FragmentSession(delivery=delivery)
        session.delivery = delivery
        if session.fragment_bytes + FRAGMENT_HEADER_BYTES > downlink_limit(self.device):
            self.events += restart(self.device, session, at=self.now, reason="the data rate fell")
        needs_answer = False
        if delivery.state in OPEN_DELIVERY:
            match session.stage:
                case SessionStage.BASE:
                    needs_answer = self._base(delivery, session)
                case SessionStage.SETUP:
                    self._setup(delivery, session)
                case SessionStage.FEEDING:
                    self._feed(delivery, session)
                case SessionStage.ASKING:
                    self._status(delivery, session)
                case SessionStage.PROVING:
                    needs_answer = self._prove(delivery, session)
        session.save()
        return needs_answer

    def _base(self, delivery: Delivery, session: FragmentSession) -> bool:
        device = self.device
        if device.flush_due_at is not None:
            return False  # what was queued for the session before must be gone first
        base = device.holds
        if base is None:
            queued = self._queued(frames.PORT, frames.ASK)
            if device.asks < ASKS_MAX or not self._is_unanswered(device.asked_uplink, queued=queued):
                return True
            # It hears us and does not say: what it was last known to hold, if that is a whole digest.
            known = delivery.node.active_digest
            base = known if len(known) == 2 * frames.DIGEST_BYTES else ""
        bundle = selectors.bundle_for_base(offering_id=delivery.offering_id or 0, base_digest=base)
        if bundle is None:
            self._fail(delivery, "no-bundle-for-base", digest=base)
            return False
        try:
            block = self._block(delivery, bundle, downlink_limit(device) - FRAGMENT_HEADER_BYTES)
        except FragmentationError as error:
            log.warning("lorawan.too-large", node=device.pk, delivery=delivery.pk, reason=str(error))
            self._fail(delivery, "too-large", digest=base)
            return False
        if delivery.bundle_id != bundle.pk:
            changed = Delivery.objects.filter(pk=delivery.pk, state__in=OPEN_DELIVERY).update(
                bundle=bundle, state=DeliveryState.OFFERED, updated_at=self.now
            )
            if not changed:
                return False
            delivery.bundle, delivery.state = bundle, DeliveryState.OFFERED
            self.events.append(delivery_event(LinkEventKind.OFFERED, delivery, at=self.now, digest=base))
        session.fragment_bytes, session.fragments = block.fragment_bytes, block.fragments
        session.last_number, session.report_before = block.fragments, device.last_report
        session.stage = SessionStage.SETUP
        self._setup(delivery, session)
        return False

    def _fail(self, delivery: Delivery, cause: str, *, digest: str = "") -> None:
        self.events += close(self.device, delivery, LinkEventKind.FAILED, at=self.now, cause=cause, digest=digest)

    def _block(self, delivery: Delivery, bundle: OfferedBundle, fragment_bytes: int) -> Block:
        build = delivery.node.firmware_build
        dialect = Dialect.V2 if build is not None and build.forward_error_correction == Dialect.V2 else Dialect.V1
        return Block(_bytes_of(bundle.blob_id), fragment_bytes, dialect)

    def _session_block(self, delivery: Delivery, session: FragmentSession) -> Block:
        if delivery.bundle is None:
            raise ValueError(f"delivery {delivery.pk}: a session without a bundle")
        return self._block(delivery, delivery.bundle, session.fragment_bytes)

    def _again(self, delivery: Delivery, session: FragmentSession, *, queued: bool, cause: str) -> bool:
        """Whether to send the session's open request now; fails the delivery after too many without an answer."""
        if queued:
            session.asked_uplink = self.device.uplinks
            return False
        if not self._is_unanswered(session.asked_uplink, queued=queued):
            return False
        if session.attempts >= ATTEMPTS_MAX:
            self._fail(delivery, cause)
            return False
        session.attempts += 1
        session.asked_uplink = self.device.uplinks
        return True

    def _setup(self, delivery: Delivery, session: FragmentSession) -> None:
        queued = any(item.port == fragmentation.PORT and fragmentation.is_setup(item.data) for item in self.queue)
        answer, session.setup_answer = session.setup_answer, ""
        if answer:
            # A copy that is still queued leaves before the first fragment, and sets up the same session again.
            if answer != ACCEPTED:
                log.info("lorawan.session-refused", node=self.device.pk, reasons=answer)
                self._fail(delivery, "session-refused")
                return
            session.stage, session.attempts, session.asked_uplink = SessionStage.FEEDING, 0, None
            self._feed(delivery, session)
        elif self._again(delivery, session, queued=queued, cause="no-session"):
            block = self._session_block(delivery, session)
            request = fragmentation.setup_request(
                fragments=block.fragments,
                fragment_bytes=block.fragment_bytes,
                padding=block.padding,
                descriptor=bytes.fromhex(delivery.bundle.blob_id)[: fragmentation.DESCRIPTOR_BYTES],  # type: ignore[union-attr]
            )
            self.frames += [Frame(fragmentation.PORT, request, delivery_id=delivery.pk)] * COPIES

    def _feed(self, delivery: Delivery, session: FragmentSession) -> None:
        ahead = sum(
            item.port == fragmentation.PORT and fragmentation.number_of(item.data) is not None for item in self.queue
        )
        self._tell_progress(delivery, session, left=session.next_number - 1 - ahead)
        if ahead >= AHEAD_LEAST:
            return
        if delivery.state != DeliveryState.TRANSFERRING:
            begun = Delivery.objects.filter(pk=delivery.pk, state__in=OPEN_DELIVERY).update(
                state=DeliveryState.TRANSFERRING, updated_at=self.now
            )
            if not begun:
                return  # cancelled in the meantime
        block = self._session_block(delivery, session)
        while ahead < AHEAD and session.next_number <= session.last_number:
            number = session.next_number
            frame = fragmentation.data_fragment(number, block.payload(number))
            self.frames.append(Frame(fragmentation.PORT, frame, delivery_id=delivery.pk, number=number))
            session.next_number += 1
            ahead += 1
        if session.next_number > session.last_number and ahead < AHEAD:
            session.stage, session.asked_uplink, session.attempts = SessionStage.ASKING, None, 0
            self._status(delivery, session)

    def _tell_progress(self, delivery: Delivery, session: FragmentSession, *, left: int) -> None:
        step = max(1, session.fragments // PROGRESS_PARTS)
        if session.told_number < session.fragments and left >= session.told_number + step:
            session.told_number = left
            total = session.fragments * session.fragment_bytes
            self.events.append(
                delivery_event(
                    LinkEventKind.PROGRESS,
                    delivery,
                    at=self.now,
                    received_bytes=min(left * session.fragment_bytes, total),
                    total_bytes=total,
                )
            )

    def _status(self, delivery: Delivery, session: FragmentSession) -> None:
        queued = any(item.port == fragmentation.PORT and fragmentation.is_status(item.data) for item in self.queue)
        if session.attempts >= ATTEMPTS_MAX and not queued:
            # It answered the set-up and is silent now: a node without a session does not answer.
            self.events += restart(self.device, session, at=self.now, reason="no answer to a status request")
        elif self._again(delivery, session, queued=queued, cause="no-session"):
            request = fragmentation.status_request()
            self.frames += [Frame(fragmentation.PORT, request, delivery_id=delivery.pk)] * COPIES
            if session.rounds > 1 and not self._queued(frames.PORT, frames.ASK):
                # Some decoders go on saying that they lack what they have made up for: the report tells.
                self.frames.append(Frame(frames.PORT, frames.ASK))

    def _prove(self, delivery: Delivery, session: FragmentSession) -> bool:
        """Nothing is missing, which proves nothing: its report tells what it has made of it."""
        if session.asked_uplink is None:
            session.asked_uplink = self.device.uplinks
            self.device.asks, self.device.asked_uplink = 0, None
        if self.device.asks >= ASKS_MAX and self._is_unanswered(self.device.asked_uplink, queued=False):
            self.events += close(self.device, delivery, LinkEventKind.DELIVERED, at=self.now)
            return False
        return True


@lru_cache(maxsize=8)
def _bytes_of(digest: str) -> bytes:
    return load(digest)
