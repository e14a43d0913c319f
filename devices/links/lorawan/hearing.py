"""What one node's events mean for its session, its commands and what is known of it. Its row is locked meanwhile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from math import ceil
from typing import Any

import structlog

from devices.links.lorawan import fragmentation, frames
from devices.links.lorawan.models import CommandExchange, FragmentSession, LoRaWanDevice, NetworkEventKind, SessionStage
from devices.links.lorawan.outcomes import close, delivery_event, node_event, restart
from devices.links.lorawan.regions import FRAGMENT_HEADER_BYTES, REGIONS
from devices.models import Delivery, LinkEvent, LinkEventKind
from devices.wire import Cause, NodeState, StateReport, WireError, decode_state

log = structlog.get_logger(__name__)

ACCEPTED = "accepted"
# Repair that gets nowhere: the node's decoder has given up.
ROUNDS_MAX = 25
# Parity of few fragments often repeats what is known already, so a little more than is missing is sent.
EXTRA_PARITY = 2
LOSS_MAX = 0.6
# Frames by which an event may come behind newer ones: posts overtake each other within seconds.
REORDERED_MOST = 16
LIMIT_LEAST = 11  # the smallest payload of any region
_ENDS_OF_AN_ASSIGNMENT = (NodeState.STAGED, NodeState.TRIAL, NodeState.CONFIRMED, NodeState.REVERTED)
_STILL_TAKING = (NodeState.IDLE, NodeState.RECEIVING, NodeState.FALLBACK)
_TRANSFER = (SessionStage.FEEDING, SessionStage.ASKING, SessionStage.PROVING)


class Hearing:
    """`events` gathers what the engine must know; rows of `sessions` and `exchanges` want saving afterwards."""

    def __init__(
        self,
        device: LoRaWanDevice,
        deliveries: Sequence[Delivery],
        sessions: Mapping[int, FragmentSession],
        exchanges: Mapping[int, CommandExchange],
    ) -> None:
        self.device = device
        self.deliveries = deliveries
        self.sessions = [sessions[delivery.pk] for delivery in deliveries if delivery.pk in sessions]
        self.exchanges = [exchanges[delivery.pk] for delivery in deliveries if delivery.pk in exchanges]
        self.events: list[LinkEvent] = []
        by_id = {delivery.pk: delivery for delivery in deliveries}
        for session in self.sessions:
            session.delivery = by_id[session.pk]
        for exchange in self.exchanges:
            exchange.delivery = by_id[exchange.pk]

    @property
    def has_work(self) -> bool:
        return bool(self.deliveries) or self.device.claim is not None or self.device.flush_due_at is not None

    def uplink(self, body: Mapping[str, Any], *, at: datetime) -> bool:
        """Whether it is the newest so far; a late one still counts for what it says."""
        device = self.device
        if device.dev_addr and body["dev_addr"] != device.dev_addr:
            self._joined(body["dev_addr"], at)  # the event that said so was lost
        device.dev_addr = body["dev_addr"]
        counter = int(body["f_cnt"])
        if counter < device.frame_counter - REORDERED_MOST:
            # A device whose counters ChirpStack does not check (skip_fcnt_check) was reset, and nothing says so.
            self._joined(device.dev_addr, at)
        late = counter <= device.frame_counter
        device.frame_counter = max(counter, device.frame_counter)
        device.uplinks += 1
        if not late:
            self._heard_at(int(body["dr"]))
        if body["region"]:
            device.region = body["region"]
        data = bytes.fromhex(body["data"])
        try:
            if body["f_port"] == frames.PORT and data:
                self._agent(data, counter=counter, late=late, at=at)
            elif body["f_port"] == fragmentation.PORT:
                for answer in fragmentation.read_answers(data):
                    self._fragmentation(answer, at)
        except (frames.FrameError, fragmentation.FragmentationError, WireError) as error:
            log.warning("lorawan.bad-uplink", node=device.node_id, reason=str(error))
        return not late

    def _heard_at(self, data_rate: int) -> None:
        device = self.device
        device.data_rate = data_rate
        if device.payload_limit is not None and data_rate > (device.payload_limit_rate or 0):
            device.payload_limit = device.payload_limit_rate = None

    def event(self, kind: str, body: Mapping[str, Any], *, at: datetime) -> None:
        """Any event but an uplink."""
        if kind == NetworkEventKind.JOIN:
            self._joined(body["dev_addr"], at)
        elif kind == NetworkEventKind.ACK:
            for exchange in self.exchanges:
                if exchange.queue_item_id and exchange.queue_item_id == body["queue_item_id"]:
                    exchange.queue_item_id = ""
                    if body["acknowledged"]:
                        exchange.acknowledged_uplink = self.device.uplinks
                    else:
                        exchange.asked_uplink = None
        elif kind == NetworkEventKind.LOG:
            self._logged(body, at)

    def _joined(self, dev_addr: str, at: datetime) -> None:
        """A node joins after a reset: its fragment memory is gone, and its queue perhaps too."""
        device = self.device
        log.info("lorawan.joined", node=device.node_id)
        device.joined_at, device.dev_addr, device.frame_counter = at, dev_addr, -1
        device.holds, device.digest_parts, device.asks, device.asked_uplink = None, {}, 0, None
        for exchange in self.exchanges:
            exchange.asked_uplink, exchange.queue_item_id = None, ""
        for session in self.sessions:
            self.events += restart(device, session, at=at, reason="the node joined anew")

    def _logged(self, body: Mapping[str, Any], at: datetime) -> None:
        device, code = self.device, body["code"]
        if code == "DOWNLINK_GATEWAY":
            device.gateway_refusals += 1
        elif code == "UPLINK_F_CNT_RESET":
            self._joined(device.dev_addr, at)  # a device without joins began its counters anew: it was reset
        elif code == "DOWNLINK_PAYLOAD_SIZE":
            self._dropped_for_size(body["context"].get("max_payload_size", ""), at)
        log.info("lorawan.log", node=device.node_id, code=code, description=body["description"])

    def _dropped_for_size(self, said: str, at: datetime) -> None:
        device = self.device
        session = next((session for session in self.sessions if session.fragment_bytes), None)
        if session is None:
            return
        needs = session.fragment_bytes + FRAGMENT_HEADER_BYTES
        limit = int(said) if said.isascii() and said.isdigit() and len(said) < 4 else needs // 2
        if limit < needs:
            device.payload_limit = max(limit, LIMIT_LEAST)
            device.payload_limit_rate = device.data_rate
            self.events += restart(device, session, at=at, reason=f"frames of {needs} bytes, {limit} fit")

    # Port 26

    def _agent(self, data: bytes, *, counter: int, late: bool, at: datetime) -> None:
        message = frames.read_frame(data)
        if isinstance(message, frames.DigestPart):
            self._digest_part(message, counter, at)
        elif isinstance(message, frames.CommandAnswer):
            self._command_answer(message, at)
        elif not message.is_state:
            self._append(LinkEventKind.REPORT, at, payload=data)
        else:
            self._state(decode_state(data), data, counter=counter, late=late, at=at)

    def _append(self, kind: LinkEventKind, at: datetime, **fields: object) -> None:
        self.events.append(node_event(kind, self.device.node_id, at=at, **fields))

    def _digest_part(self, part: frames.DigestPart, counter: int, at: datetime) -> None:
        known = self.device.digest_parts
        pieces = known["pieces"] if known.get("count") == part.count else {}
        pieces[str(part.index)] = [counter, part.piece.hex()]
        self.device.digest_parts = {"count": part.count, "pieces": pieces}
        if self.device.claim is not None:
            claim = bytes(self.device.claim)
            if self._take_digest(decode_state(claim), at):
                self._append(LinkEventKind.REPORT, at, payload=claim)
                self.device.claim = None

    def _take_digest(self, report: StateReport, at: datetime) -> bool:
        """Whether the digest is whole and begins as the report says; then it is what the node holds."""
        parts = self.device.digest_parts
        if not parts:
            return False
        pieces = {int(index): (counter, bytes.fromhex(piece)) for index, (counter, piece) in parts["pieces"].items()}
        digest = frames.join_digest(parts["count"], pieces)
        if digest is None or (digest or bytes(4))[:4] != report.active_prefix:
            return False
        self.device.digest_parts = {}
        self.device.holds, self.device.asks, self.device.asked_uplink = digest.hex(), 0, None
        self._append(LinkEventKind.HOLDS, at, digest=digest.hex())
        return True

    def _contradicts(self, report: StateReport, counter: int, at: datetime) -> bool:
        """Whether the node claims success and itself told another digest: all parts came in the frames right before it.

        With a gap between them, loss has mixed parts of two digests, and they are dropped.
        """
        parts = self.device.digest_parts
        pieces = {int(index): (seen, bytes.fromhex(piece)) for index, (seen, piece) in parts["pieces"].items()}
        if len(pieces) < parts["count"]:
            return False
        self.device.digest_parts = {}
        digest = frames.join_digest(parts["count"], pieces)
        if report.state is not NodeState.CONFIRMED or digest is None:
            return False
        if sorted(seen for seen, _ in pieces.values()) != list(range(counter - len(pieces), counter)):
            return False
        self.device.holds, self.device.asks, self.device.asked_uplink = digest.hex(), 0, None
        self._append(LinkEventKind.HOLDS, at, digest=digest.hex())
        return True

    def _state(self, report: StateReport, payload: bytes, *, counter: int, late: bool, at: datetime) -> None:
        device = self.device
        before = None if device.last_report is None else bytes(device.last_report)
        if not late:
            device.last_report = payload
            self._tell_session(report, payload, at)
            self._tell_commands(report, changed=payload != before, at=at)
        proved = self._take_digest(report, at)
        if not proved and device.digest_parts and not late:
            proved = self._contradicts(report, counter, at)
        if report.state is NodeState.CONFIRMED and not proved:
            if payload != device.claim:
                device.claim, device.asks, device.asked_uplink = payload, 0, None
            return
        if not late:
            device.claim = None
        self._append(LinkEventKind.REPORT, at, payload=payload)

    def _tell_session(self, report: StateReport, payload: bytes, at: datetime) -> None:
        """Whether the node has made up its mind about the bundle; the engine judges what it has decided."""
        session = next((session for session in self.sessions if session.stage in _TRANSFER), None)
        if session is None:
            return
        if session.report_before is None:
            session.report_before = payload
            return
        before = decode_state(bytes(session.report_before))
        is_proving = session.stage == SessionStage.PROVING
        if report.state in _STILL_TAKING:
            if is_proving:
                self._ask_again(session, at)
            return
        speaks_of_earlier = report == before or (
            report.state in _ENDS_OF_AN_ASSIGNMENT and report.sequence_low == before.sequence_low
        )
        if speaks_of_earlier and not is_proving:
            session.report_before = payload
            return
        self.events += close(self.device, session.delivery, LinkEventKind.DELIVERED, at=at)
        self.sessions.remove(session)
        session.save()

    def _ask_again(self, session: FragmentSession, at: datetime) -> None:
        """It said that nothing is missing, and says now that it has not got the bundle."""
        session.rounds += 1
        if session.rounds > ROUNDS_MAX:
            self.events += restart(self.device, session, at=at, reason="nothing missing, nothing taken")
        else:
            session.stage, session.asked_uplink, session.attempts = SessionStage.ASKING, None, 0

    def _tell_commands(self, report: StateReport, *, changed: bool, at: datetime) -> None:
        if not changed or (report.state, report.cause) != (NodeState.REVERTED, Cause.COMMANDED):
            return
        for exchange in self.exchanges:
            if exchange.attempts:
                self.events += close(self.device, exchange.delivery, LinkEventKind.DELIVERED, at=at)

    def _command_answer(self, answer: frames.CommandAnswer, at: datetime) -> None:
        exchange = next(
            (one for one in self.exchanges if one.attempts and bytes(one.delivery.command or b"")[0] == answer.command),
            None,
        )
        if exchange is None:
            return
        if answer.result == Cause.BUSY:
            # In the middle of a trial there is nothing to revert yet: it is told again.
            exchange.asked_uplink = exchange.acknowledged_uplink = None
        elif answer.result == Cause.NONE:
            self.events += close(self.device, exchange.delivery, LinkEventKind.DELIVERED, at=at)
        else:
            log.info("lorawan.command-refused", node=self.device.node_id, result=answer.result)
            self.events += close(self.device, exchange.delivery, LinkEventKind.FAILED, at=at, cause="command-refused")

    # Port 201

    def _fragmentation(self, answer: fragmentation.Answer, at: datetime) -> None:
        session = next(iter(self.sessions), None)
        if session is None or getattr(answer, "index", 0) != 0:
            return
        if isinstance(answer, fragmentation.SetupAnswer) and session.stage == SessionStage.SETUP:
            if answer.accepted and session.setup_answer != ACCEPTED:
                # The node has taken the offer up. Its first fragment may wait long for a gateway's duty cycle.
                self.events.append(self._progress(session, 0, at))
            session.setup_answer = ACCEPTED if answer.accepted else " ".join(answer.refusals)
        elif isinstance(answer, fragmentation.StatusAnswer) and session.stage == SessionStage.ASKING:
            self._status(session, answer, at)

    def _status(self, session: FragmentSession, answer: fragmentation.StatusAnswer, at: datetime) -> None:
        session.received, session.missing = answer.received, answer.missing
        session.asked_uplink, session.attempts = None, 0
        if answer.no_memory:
            self.events += restart(self.device, session, at=at, reason="the decoder has no memory left")
            return
        if answer.missing == 0:
            session.stage = SessionStage.PROVING
            return
        session.rounds += 1
        sent = session.next_number - 1
        loss = min(max(1 - answer.received / sent, 0.0) if sent else 0.0, LOSS_MAX)
        wanted = ceil((answer.missing + EXTRA_PARITY) / (1 - loss))
        if session.rounds > ROUNDS_MAX or sent + wanted > fragmentation.NUMBER_MAX:
            self.events += restart(self.device, session, at=at, reason="repair got nowhere")
            return
        session.stage, session.last_number = SessionStage.FEEDING, sent + wanted
        self.events.append(self._progress(session, session.fragments - answer.missing, at))

    def _progress(self, session: FragmentSession, fragments: int, at: datetime) -> LinkEvent:
        total = session.fragments * session.fragment_bytes
        received = max(0, min(fragments, session.fragments)) * session.fragment_bytes
        return delivery_event(
            LinkEventKind.PROGRESS, session.delivery, at=at, received_bytes=received, total_bytes=total
        )


def downlink_limit(device: LoRaWanDevice) -> int:
    """Most bytes of a downlink to the node now."""
    limit = REGIONS[device.region].downlink_limit(device.data_rate)
    return limit if device.payload_limit is None else min(limit, device.payload_limit)
