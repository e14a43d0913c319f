"""The stand-in radio network: between a node's modem and a real UDP socket, with the physics of NB-IoT.

Loss and delay sit in the process; the datagrams that survive go over a socket of the node's own, so the gateway sees
one address a node and a new one whenever the operator's NAT has forgotten the old mapping (20-120 s idle, see
docs/nbiot.md). Costs one file descriptor a node and one timer a datagram.
"""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import Callable
from dataclasses import dataclass

from devices.simulator.clock import Clock

_DATAGRAM_MAX = 65535

Address = tuple[str, int]


@dataclass
class Traffic:
    """UDP payload bytes and datagrams on the air; lost ones were on the air too, black-holed ones never were."""

    bytes_up: int = 0
    bytes_down: int = 0
    messages_up: int = 0
    messages_down: int = 0
    lost: int = 0
    black_holed: int = 0  # came for a node that slept, or for a NAT mapping that had expired
    rebindings: int = 0


@dataclass(frozen=True)
class Radio:
    """How good a node's radio path is. Seconds are simulated."""

    loss: float = 0.0  # probability of losing a datagram, each way, 0..1
    latency_s: float = 0.5  # one way
    jitter_s: float = 0.1  # added on top, uniform from 0
    nat_idle_s: float = 60.0  # a mapping without uplink for so long is gone

    def __post_init__(self) -> None:
        if not 0 <= self.loss < 1:
            raise ValueError(f"loss: {self.loss}, must be 0 or more and below 1")
        for name in ("latency_s", "jitter_s", "nat_idle_s"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}: {getattr(self, name)}, must be 0 s or more")


class RadioPath:
    """One node's way to the outside. `awake` is the modem's switch: what comes down while it is off is gone."""

    def __init__(
        self,
        clock: Clock,
        radio: Radio,
        rng: random.Random,
        receive: Callable[[bytes, Address], None],
        family: socket.AddressFamily = socket.AF_INET,
    ) -> None:
        self.traffic = Traffic()
        self.awake = False
        self._clock, self._radio, self._rng, self._receive, self._family = clock, radio, rng, receive, family
        self._loop = asyncio.get_running_loop()
        self._socket: socket.socket | None = None
        self._last_up = 0.0

    def send(self, data: bytes, address: Address) -> None:
        now = self._clock.now()
        if self._socket is not None and now - self._last_up > self._radio.nat_idle_s:
            self.close()
            self.traffic.rebindings += 1
        if self._socket is None:
            self._open()
        self._last_up = now
        self.traffic.bytes_up += len(data)
        self.traffic.messages_up += 1
        if self._lost():
            return
        self._clock.call_later(self._delay(), self._leave, self._socket, data, address)

    def close(self) -> None:
        """Drop the mapping; the next datagram leaves from another port."""
        if self._socket is not None:
            self._loop.remove_reader(self._socket)
            self._socket.close()
            self._socket = None

    def _open(self) -> None:
        # Not connected: an ICMP error of the host must not reach the node, a radio network carries none.
        self._socket = socket.socket(self._family, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.bind(("::" if self._family == socket.AF_INET6 else "0.0.0.0", 0))  # noqa: S104  # any way out
        self._loop.add_reader(self._socket, self._arrive, self._socket)

    def _lost(self) -> bool:
        lost = self._rng.random() < self._radio.loss
        self.traffic.lost += lost
        return lost

    def _delay(self) -> float:
        return self._radio.latency_s + self._rng.uniform(0, self._radio.jitter_s)

    def _leave(self, through: socket.socket, data: bytes, address: Address) -> None:
        if through.fileno() == -1:
            self.traffic.lost += 1  # the mapping was dropped while the datagram was in the air
            return
        try:
            through.sendto(data, address)
        except OSError:
            self.traffic.lost += 1  # no route or a full buffer: to a node this is loss

    def _arrive(self, through: socket.socket) -> None:
        while True:
            try:
                data, address = through.recvfrom(_DATAGRAM_MAX)
            except OSError:  # nothing more to read
                return
            if not self.awake or self._clock.now() - self._last_up > self._radio.nat_idle_s:
                self.traffic.black_holed += 1
                continue
            self.traffic.bytes_down += len(data)
            self.traffic.messages_down += 1
            if not self._lost():
                self._clock.call_later(self._delay(), self._hear, data, address[:2])

    def _hear(self, data: bytes, address: Address) -> None:
        if self.awake:
            self._receive(data, address)
        else:
            self.traffic.black_holed += 1
