"""The air between nodes and gateways: who hears which frame, and when. All times in simulated seconds."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from devices.simulator.chirpstack import eu868
from devices.simulator.chirpstack.gateway import Gateway, TxStatus
from devices.simulator.chirpstack.timeline import Timeline

DEDUPLICATION_S = 0.2  # how long ChirpStack collects what several gateways heard

_SNR_FLOOR = (-20.0, -17.5, -15.0, -12.5, -10.0, -7.5)  # dB by data rate: below it nothing is demodulated
_FORGET_S = 10.0  # longer than any frame


@dataclass(frozen=True)
class JoinRequest:
    dev_eui: str
    nonce: int
    key: str  # in place of the code computed with it: no client of ChirpStack sees either


@dataclass(frozen=True)
class JoinAccept:
    dev_eui: str
    dev_addr: str


@dataclass(frozen=True)
class DataFrame:
    """`port` and `data` are None in a frame without payload. `f_cnt`: the 16 bits on air."""

    dev_addr: str
    f_cnt: int
    port: int | None = None
    data: bytes | None = None
    confirmed: bool = False
    ack: bool = False
    adr: bool = False
    pending: bool = False


Frame = JoinRequest | JoinAccept | DataFrame


@dataclass(frozen=True)
class Link:
    """Between one node and one gateway: probability of loss each way, and the margin over the demodulation floor."""

    loss_up: float
    loss_down: float
    margin_db: float = 6.0


class Station(Protocol):
    """A node's modem."""

    @property
    def links(self) -> Mapping[str, Link]: ...

    def incoming(self, until: float) -> None:
        """A preamble is heard: the receiver stays on until the frame has ended."""

    def hear(self, frame: Frame, time_s: float) -> None: ...


@dataclass(frozen=True)
class Reception:
    gateway_id: str
    rssi: int
    snr: float


@dataclass(frozen=True)
class Heard:
    """An uplink as the network server gets it. `ended`: when the last bit was sent; windows count from there."""

    station: Station
    frame: Frame
    ended: float
    frequency: int
    data_rate: int
    receptions: tuple[Reception, ...]  # best first


@dataclass(frozen=True)
class Opportunity:
    """One receive window that a gateway may use."""

    start: float
    frequency: int
    data_rate: int
    frame: Frame
    size: int


@dataclass
class _Uplink:
    start: float
    end: float
    frequency: int
    data_rate: int


class Air:
    """`deliver` gets each uplink that any gateway heard, once."""

    def __init__(self, timeline: Timeline, gateways: Mapping[str, Gateway], rng: random.Random) -> None:
        self.deliver: Callable[[Heard], None] = lambda heard: None
        self.gateways = gateways
        self._timeline, self._rng = timeline, rng
        self._uplinks: list[_Uplink] = []

    def send_up(
        self, station: Station, frame: Frame, *, start: float, frequency: int, data_rate: int, size: int
    ) -> float:
        """When the frame ends."""
        end = start + eu868.airtime_s(size, data_rate, uplink=True)
        uplink = _Uplink(start, end, frequency, data_rate)
        self._uplinks = [other for other in self._uplinks if other.end > start - _FORGET_S]
        self._uplinks.append(uplink)
        self._timeline.at(end, lambda _: self._arrive(station, frame, uplink))
        return end

    def send_down(
        self,
        station: Station,
        gateway_id: str,
        windows: list[Opportunity],
        *,
        now: float,
        told: Callable[[TxStatus, Opportunity], None],
    ) -> None:
        """Hand a downlink to a gateway, which uses the first window that it can; `told` gets its acknowledgement."""
        gateway = self.gateways[gateway_id]

        def schedule(time_s: float) -> None:
            status: TxStatus = "TOO_LATE"
            for window in windows:
                airtime = eu868.airtime_s(window.size, window.data_rate, uplink=False)
                status = gateway.transmit(now=time_s, start=window.start, frequency=window.frequency, airtime=airtime)
                if status == "OK":
                    self._send(station, gateway, window, airtime)
                    break
            told(status, window)

        self._timeline.at(now + gateway.spec.backhaul_s, schedule)

    def _send(self, station: Station, gateway: Gateway, window: Opportunity, airtime: float) -> None:
        if self._rng.random() < station.links[gateway.spec.gateway_id].loss_down:
            gateway.traffic.lost += 1
            return
        end = window.start + airtime
        self._timeline.at(window.start, lambda _: station.incoming(end))
        self._timeline.at(end, lambda time_s: station.hear(window.frame, time_s))

    def _arrive(self, station: Station, frame: Frame, uplink: _Uplink) -> None:
        collided = any(
            other is not uplink
            and (other.frequency, other.data_rate) == (uplink.frequency, uplink.data_rate)
            and other.start < uplink.end
            and uplink.start < other.end
            for other in self._uplinks
        )
        heard: list[Reception] = []
        for gateway_id, link in station.links.items():
            gateway = self.gateways[gateway_id]
            if gateway.is_deaf(uplink.start, uplink.end):
                gateway.traffic.deafened += 1
            elif collided:
                gateway.traffic.collided += 1
            elif self._rng.random() < link.loss_up:
                gateway.traffic.lost += 1
            else:
                gateway.traffic.frames_up += 1
                snr = round(_SNR_FLOOR[uplink.data_rate] + link.margin_db + self._rng.uniform(-2, 2), 1)
                heard.append(Reception(gateway_id, round(-111 + min(snr, 5)), snr))
        if not heard:
            return
        best_first = tuple(sorted(heard, key=lambda reception: -reception.snr))
        result = Heard(station, frame, uplink.end, uplink.frequency, uplink.data_rate, best_first)
        self._timeline.at(uplink.end + DEDUPLICATION_S, lambda _: self.deliver(result))
