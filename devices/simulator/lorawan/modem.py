"""A class A modem (LoRaWAN 1.0.4): joins, sends one frame at a time, and listens only in the windows after it."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from devices.simulator.chirpstack import eu868
from devices.simulator.chirpstack.air import Air, DataFrame, Frame, JoinAccept, JoinRequest, Link
from devices.simulator.chirpstack.timeline import Timeline

_DUTY_CYCLE = 0.01  # of 868.0-868.6 MHz, where all three channels are
_LISTEN_S = 0.2  # how long the receiver waits for a preamble after RX2 has opened
_UINT16 = 0xFFFF


@dataclass
class Traffic:
    """`unanswered`: joins and confirmed uplinks that nothing came back for."""

    messages_up: int = 0
    messages_down: int = 0
    bytes_up: int = 0  # FRMPayload
    bytes_down: int = 0
    airtime_up_s: float = 0.0
    unanswered: int = 0
    joins: int = 0


@dataclass(frozen=True)
class Window:
    """What came of an uplink. `frame`: the downlink, None where none was heard; `acknowledged`: the uplink was."""

    time_s: float
    frame: DataFrame | None
    acknowledged: bool


class Modem:
    """`joined` and `window` are called after each uplink, one or the other. Times in simulated seconds."""

    def __init__(
        self,
        air: Air,
        timeline: Timeline,
        rng: random.Random,
        *,
        dev_eui: str,
        key: str,
        data_rate: int,
        adr: bool,
        links: Mapping[str, Link],
        joined: Callable[[float, bool], None],
        window: Callable[[Window], None],
    ) -> None:
        self.traffic = Traffic()
        self.data_rate = data_rate
        self.links = links
        self.free_at = 0.0  # from when the duty cycle allows the next frame
        self._air, self._timeline, self._rng = air, timeline, rng
        self._dev_eui, self._key, self._adr = dev_eui, key, adr
        self._joined, self._window = joined, window
        # A real modem counts its DevNonce in flash. Here it starts at random, so that a restarted one is not refused.
        self._nonce = rng.randrange(1 << 15)
        self.dev_addr: str | None = None
        self._f_cnt_up = 0
        self._f_cnt_down = -1
        self.must_ack = False  # the next uplink acknowledges a confirmed downlink
        self._listens_until = 0.0
        self._sent: Frame | None = None  # whose windows are still to come

    @property
    def busy(self) -> bool:
        return self._sent is not None

    @property
    def payload_max(self) -> int:
        """Bytes of FRMPayload that an uplink carries at the present data rate."""
        return eu868.FRM_PAYLOAD_MAX[self.data_rate]

    def reset(self) -> None:
        """RAM is gone: session, counters, an open window."""
        self.dev_addr, self._sent, self.must_ack = None, None, False

    def join(self, time_s: float) -> None:
        self.dev_addr = None
        self._nonce += 1
        self.traffic.joins += 1
        request = JoinRequest(self._dev_eui, self._nonce, self._key)
        self._transmit(request, time_s, eu868.JOIN_REQUEST, eu868.JOIN_DELAY2_S)

    def send(self, time_s: float, port: int | None, data: bytes | None, *, confirmed: bool = False) -> None:
        """Send now, which the duty cycle must allow. No port: an empty frame."""
        if self.dev_addr is None:
            raise RuntimeError("send: join first")
        frame = DataFrame(
            self.dev_addr,
            self._f_cnt_up & _UINT16,
            port,
            data,
            confirmed=confirmed,
            ack=self.must_ack,
            adr=self._adr,
        )
        self._f_cnt_up += 1
        self.must_ack = False
        self.traffic.bytes_up += len(data or b"")
        self._transmit(frame, time_s, eu868.frame_bytes(data), eu868.RX2_DELAY_S)

    def _transmit(self, frame: Frame, time_s: float, size: int, last_window_s: float) -> None:
        if self.busy or time_s < self.free_at - 1e-6:
            raise RuntimeError(f"transmit at {time_s}: busy, or the duty cycle forbids it until {self.free_at}")
        self._sent = frame
        self.traffic.messages_up += 1
        frequency = self._rng.choice(eu868.UPLINK_CHANNELS)
        end = self._air.send_up(self, frame, start=time_s, frequency=frequency, data_rate=self.data_rate, size=size)
        self.traffic.airtime_up_s += end - time_s
        self.free_at = end + (end - time_s) * (1 / _DUTY_CYCLE - 1)
        self._listens_until = end + last_window_s + _LISTEN_S
        self._timeline.at(self._listens_until, lambda due: self._end_windows(frame, due))

    def _end_windows(self, frame: Frame, time_s: float) -> None:
        if self._sent is not frame:
            return
        if time_s < self._listens_until:  # a preamble was heard meanwhile
            self._timeline.at(self._listens_until, lambda due: self._end_windows(frame, due))
            return
        self.traffic.unanswered += isinstance(frame, JoinRequest) or (isinstance(frame, DataFrame) and frame.confirmed)
        self._finish(time_s, None)

    # What the air calls

    def incoming(self, until: float) -> None:
        if self.busy:
            self._listens_until = max(self._listens_until, until + _LISTEN_S)

    def hear(self, frame: Frame, time_s: float) -> None:
        if not self.busy:
            return
        if isinstance(frame, JoinAccept):
            if self.dev_addr is None and frame.dev_eui == self._dev_eui:
                self.dev_addr, self._f_cnt_up, self._f_cnt_down = frame.dev_addr, 0, -1
                self.traffic.messages_down += 1
                self._finish(time_s, None)
        elif isinstance(frame, DataFrame) and frame.dev_addr == self.dev_addr:
            self._take(frame, time_s)

    def _take(self, frame: DataFrame, time_s: float) -> None:
        counter = self._f_cnt_down + 1 + ((frame.f_cnt - self._f_cnt_down - 1) & _UINT16)
        if counter - self._f_cnt_down > _UINT16 // 2:
            return  # an old frame: the code over its whole counter would not fit
        self._f_cnt_down = counter
        self.must_ack = frame.confirmed
        self.traffic.messages_down += 1
        self.traffic.bytes_down += len(frame.data or b"")
        self._finish(time_s, frame)

    def _finish(self, time_s: float, frame: DataFrame | None) -> None:
        sent, self._sent = self._sent, None
        if isinstance(sent, JoinRequest):
            self._joined(time_s, self.dev_addr is not None)
        else:
            self._window(Window(time_s, frame, frame is not None and frame.ack))
