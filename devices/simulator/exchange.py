"""CoAP exchanges of one node: confirmable requests, retransmission, answers, duplicates (RFC 7252, 4.2-4.5, 5.2)."""

from __future__ import annotations

import asyncio
import random
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from devices.simulator import coap
from devices.simulator.clock import Clock
from devices.simulator.coap import Message
from devices.simulator.network import Address

_MAX_RETRANSMIT = 4
_SEPARATE_RESPONSE_S = 93.0  # MAX_TRANSMIT_WAIT: how long to wait after an empty acknowledgement
_ANSWERS_KEPT = 16  # a microcontroller has no room for 247 s of them

Answer = tuple[int, list[tuple[int, bytes]], bytes]  # code, options, payload


class NoAnswer(Exception):
    """The other side did not answer, or it reset the exchange."""


@dataclass
class _Exchange:
    mid: int
    answered: asyncio.Future[Message] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    acknowledged: bool = False


class CoapEndpoint:
    """`serve` answers requests at once (piggybacked). `deduplicate`: whether a repeated request gets the kept answer;
    many clients in the field have no such cache and answer again."""

    def __init__(
        self,
        clock: Clock,
        rng: random.Random,
        send: Callable[[bytes, Address], None],
        serve: Callable[[Message], Answer],
        *,
        ack_timeout_s: float,
        deduplicate: bool = True,
    ) -> None:
        self.last_exchange = 0.0  # simulated time of the last datagram either way
        self._clock, self._rng, self._send_datagram, self._serve = clock, rng, send, serve
        self._ack_timeout_s, self._deduplicate = ack_timeout_s, deduplicate
        self._mid = rng.randrange(1 << 16)
        self._open: dict[bytes, _Exchange] = {}
        self._answers: OrderedDict[tuple[Address, int], bytes] = OrderedDict()

    async def request(
        self, address: Address, code: int, options: list[tuple[int, bytes]], payload: bytes = b""
    ) -> Message:
        """The response. Raises NoAnswer after 4 retransmissions, each twice as late as the one before."""
        self._mid = (self._mid + 1) & 0xFFFF
        token = self._rng.randbytes(4)
        exchange = self._open[token] = _Exchange(self._mid)
        data = coap.encode(Message(coap.CON, code, self._mid, token, options, payload))
        timeout = self._ack_timeout_s * self._rng.uniform(1.0, 1.5)
        try:
            for _ in range(1 + _MAX_RETRANSMIT):
                self._send(data, address)
                await asyncio.wait((exchange.answered,), timeout=self._clock.wall(timeout))
                if exchange.acknowledged:
                    await asyncio.wait((exchange.answered,), timeout=self._clock.wall(_SEPARATE_RESPONSE_S))
                    break
                if exchange.answered.done():
                    break
                timeout *= 2
            if not exchange.answered.done():
                raise NoAnswer(f"no answer from {address[0]}:{address[1]}")
            return exchange.answered.result()
        finally:
            del self._open[token]
            exchange.answered.cancel()

    def forget(self) -> None:
        """A reset: nothing of an exchange survives it."""
        self._answers.clear()

    def receive(self, data: bytes, address: Address) -> None:
        """A datagram from the network; what is not CoAP is dropped in silence (RFC 7252, 4.2)."""
        try:
            message = coap.decode(data)
        except coap.CoapInvalid:
            return
        self.last_exchange = self._clock.now()
        if message.is_request:
            self._answer(message, address)
        elif message.code == coap.EMPTY:
            self._receive_empty(message, address)
        else:
            self._receive_response(message, address)

    def _send(self, data: bytes, address: Address) -> None:
        self.last_exchange = self._clock.now()
        self._send_datagram(data, address)

    def _answer(self, request: Message, address: Address) -> None:
        key = (address, request.mid)
        kept = self._answers.get(key) if self._deduplicate else None
        if kept is None:
            code, options, payload = self._serve(request)
            kind, mid = (
                (coap.ACK, request.mid) if request.type == coap.CON else (coap.NON, self._rng.randrange(1 << 16))
            )
            kept = coap.encode(Message(kind, code, mid, request.token, options, payload))
            self._answers[key] = kept
            while len(self._answers) > _ANSWERS_KEPT:
                self._answers.popitem(last=False)
        self._send(kept, address)

    def _receive_empty(self, message: Message, address: Address) -> None:
        if message.type == coap.CON:  # a ping is answered with a reset (RFC 7252, 4.3)
            self._send(coap.encode(Message(coap.RST, coap.EMPTY, message.mid)), address)
            return
        for exchange in self._open.values():
            if exchange.mid == message.mid and not exchange.answered.done():
                if message.type == coap.RST:
                    exchange.answered.set_exception(NoAnswer("the server reset the exchange"))
                else:
                    exchange.acknowledged = True

    def _receive_response(self, message: Message, address: Address) -> None:
        exchange = self._open.get(message.token)
        if message.type == coap.CON:
            kind = coap.ACK if exchange is not None else coap.RST
            self._send(coap.encode(Message(kind, coap.EMPTY, message.mid)), address)
        if exchange is not None and not exchange.answered.done():
            exchange.answered.set_result(message)
