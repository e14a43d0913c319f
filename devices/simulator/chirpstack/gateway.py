"""A gateway: half-duplex, one frame at a time, and bound to the duty cycle of each sub-band."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Literal

from devices.simulator.chirpstack import eu868

TxStatus = Literal["OK", "TOO_LATE", "COLLISION_PACKET", "DUTY_CYCLE_OVERFLOW"]

_HOUR_S = 3600.0
_LEAD_S = 0.05  # a concentrator wants a frame so long before it is due


@dataclass(frozen=True)
class GatewaySpec:
    """`gateway_id`: EUI-64 in hex. `loss`: of each frame either way, on top of the node's own. `backhaul_s`: one way."""

    gateway_id: str
    name: str = ""
    loss: float = 0.0
    backhaul_s: float = 0.05
    duty_cycle: bool = True

    def __post_init__(self) -> None:
        if len(bytes.fromhex(self.gateway_id)) != 8:
            raise ValueError(f"gateway_id: {self.gateway_id!r}, must be 8 bytes in hex")
        if not 0 <= self.loss < 1:
            raise ValueError(f"gateway {self.gateway_id}: loss {self.loss}, must be 0 or more and below 1")
        if self.backhaul_s < 0:
            raise ValueError(f"gateway {self.gateway_id}: backhaul_s {self.backhaul_s}, must be 0 or more")


@dataclass
class Traffic:
    frames_up: int = 0  # heard whole
    frames_down: int = 0
    deafened: int = 0  # uplinks that came while it sent
    collided: int = 0  # uplinks that came over each other
    lost: int = 0  # by the link, uplinks and downlinks
    too_late: int = 0
    collision_refusals: int = 0
    duty_cycle_refusals: int = 0
    airtime_s: dict[str, float] = field(default_factory=lambda: dict.fromkeys(eu868.SUB_BANDS, 0.0))


class DutyLedger:
    """Seconds sent in each sub-band in the hour past."""

    def __init__(self) -> None:
        self._sent: dict[str, deque[tuple[float, float]]] = {band: deque() for band in eu868.SUB_BANDS}
        self._sum = dict.fromkeys(eu868.SUB_BANDS, 0.0)

    def used_s(self, band: str, now: float) -> float:
        sent = self._sent[band]
        while sent and sent[0][0] <= now - _HOUR_S:
            self._sum[band] -= sent.popleft()[1]
        return self._sum[band]

    def fits(self, band: str, now: float, airtime: float) -> bool:
        return self.used_s(band, now) + airtime <= eu868.SUB_BANDS[band][2] * _HOUR_S + 1e-9

    def add(self, band: str, now: float, airtime: float) -> None:
        self._sent[band].append((now, airtime))
        self._sum[band] += airtime


class Gateway:
    def __init__(self, spec: GatewaySpec) -> None:
        self.spec = spec
        self.traffic = Traffic()
        self.ledger = DutyLedger()
        self._sending: list[tuple[float, float]] = []

    def transmit(self, *, now: float, start: float, frequency: int, airtime: float) -> TxStatus:
        """Take a frame that is to start at `start`. All times in simulated seconds, `now` when it has arrived here."""
        if now + _LEAD_S > start:
            self.traffic.too_late += 1
            return "TOO_LATE"
        self._sending = [span for span in self._sending if span[1] > now - 10]
        if any(start < end and begin < start + airtime for begin, end in self._sending):
            self.traffic.collision_refusals += 1
            return "COLLISION_PACKET"
        band = eu868.sub_band(frequency)
        if self.spec.duty_cycle and not self.ledger.fits(band, start, airtime):
            self.traffic.duty_cycle_refusals += 1
            return "DUTY_CYCLE_OVERFLOW"
        self.ledger.add(band, start, airtime)
        self.traffic.airtime_s[band] += airtime
        self.traffic.frames_down += 1
        self._sending.append((start, start + airtime))
        return "OK"

    def is_deaf(self, start: float, end: float) -> bool:
        """Whether it sends at any time between."""
        return any(start < until and begin < end for begin, until in self._sending)
