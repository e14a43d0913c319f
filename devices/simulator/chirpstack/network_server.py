"""The network server: sessions, frame counters, and the one downlink that an uplink may be answered with."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from chirpstack_api import gw

from devices.simulator.chirpstack import eu868
from devices.simulator.chirpstack.air import Air, DataFrame, Heard, JoinAccept, JoinRequest, Opportunity
from devices.simulator.chirpstack.events import Events
from devices.simulator.chirpstack.gateway import TxStatus
from devices.simulator.chirpstack.link_metrics import LinkMetrics
from devices.simulator.chirpstack.queue import DeviceQueue, Item
from devices.simulator.chirpstack.store import Store
from devices.simulator.chirpstack.timeline import Timeline

_DOWNLINK_DELAY_S = 0.1  # ChirpStack waits so long after `up`, so that an application can still answer in RX1
_UINT16 = 0xFFFF
_TX_POWER_DBM = {"868.0-868.6": 14, "869.4-869.65": 27}


@dataclass(frozen=True)
class Windows:
    """What a region is configured to: RX1 data rate offset, RX2 data rate."""

    rx1_dr_offset: int = 0
    rx2_data_rate: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.rx1_dr_offset <= 5 or not 0 <= self.rx2_data_rate <= 5:
            raise ValueError(f"rx1_dr_offset {self.rx1_dr_offset}, rx2_data_rate {self.rx2_data_rate}: must be 0..5")


@dataclass
class Session:
    """Counters have 32 bits here and 16 on air, and are the next ones; one counts all downlinks (LoRaWAN 1.0.x)."""

    dev_eui: str
    dev_addr: str
    keys: dict[str, str]
    f_cnt_up: int = 0
    f_cnt_down: int = 0
    join_is_told: bool = False


class NetworkServer:
    """`now`: the wall clock in UTC, by which clients date their items."""

    def __init__(
        self,
        store: Store,
        events: Events,
        air: Air,
        timeline: Timeline,
        rng: random.Random,
        *,
        windows: Windows,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.windows = windows
        self.sessions: dict[str, Session] = {}  # by DevEUI
        self.metrics: dict[str, LinkMetrics] = {}
        self.last_seen: dict[str, datetime] = {}
        self.gateway_seen: dict[str, datetime] = {}
        self._store, self._events, self._air, self._timeline = store, events, air, timeline
        self._rng, self._now = rng, now
        self._queues: dict[str, DeviceQueue] = {}
        self._addresses: dict[str, str] = {}  # DevAddr -> DevEUI
        self._nonces: dict[str, set[int]] = {}
        self._downlinks = 0
        air.deliver = self._receive

    def queue(self, dev_eui: str) -> DeviceQueue:
        return self._queues.setdefault(dev_eui, DeviceQueue())

    def deactivate(self, dev_eui: str) -> None:
        """Forget the session; the node must join again."""
        session = self.sessions.pop(dev_eui, None)
        if session is not None:
            del self._addresses[session.dev_addr]

    def forget(self, dev_eui: str) -> None:
        """The device was deleted."""
        self.deactivate(dev_eui)
        for table in (self._queues, self.metrics, self.last_seen, self._nonces):
            table.pop(dev_eui, None)

    def forget_nonces(self, dev_eui: str) -> None:
        self._nonces.pop(dev_eui, None)

    def _receive(self, heard: Heard) -> None:
        for reception in heard.receptions:
            self.gateway_seen[reception.gateway_id] = self._now()
        if isinstance(heard.frame, JoinRequest):
            self._join(heard, heard.frame)
        elif isinstance(heard.frame, DataFrame):
            self._data(heard, heard.frame)

    # Joining

    def _join(self, heard: Heard, request: JoinRequest) -> None:
        dev_eui = request.dev_eui
        row = self._store.devices.rows.get(dev_eui)
        if row is None or row.value.is_disabled:
            return
        keys = self._store.device_keys.rows.get(dev_eui)
        if keys is None or keys.value.nwk_key != request.key:
            self._events.log(dev_eui, "ERROR", "OTAA", "MIC of join-request is invalid, make sure keys are correct")
            return
        used = self._nonces.setdefault(dev_eui, set())
        if request.nonce in used:
            self._events.log(dev_eui, "ERROR", "OTAA", "DevNonce has already been used")
            return
        used.add(request.nonce)
        self.deactivate(dev_eui)
        dev_addr = self._fresh_address()
        names = ("app_s_key", "nwk_s_enc_key", "s_nwk_s_int_key", "f_nwk_s_int_key")
        self.sessions[dev_eui] = Session(dev_eui, dev_addr, {name: self._rng.randbytes(16).hex() for name in names})
        self._addresses[dev_addr] = dev_eui
        if self._store.device_profiles.get(row.value.device_profile_id).value.flush_queue_on_activate:
            self.queue(dev_eui).flush()
        accept = JoinAccept(dev_eui, dev_addr)
        delays = (eu868.JOIN_DELAY1_S, eu868.JOIN_DELAY2_S)
        windows = self._opportunities(heard, delays, accept, accept, eu868.JOIN_ACCEPT, eu868.JOIN_ACCEPT)
        self._air.send_down(
            heard.station,
            heard.receptions[0].gateway_id,
            windows,
            now=self._timeline.now(),
            told=lambda status, _: None if status == "OK" else self._events.gateway_error(dev_eui, status),
        )

    def _fresh_address(self) -> str:
        while True:
            address = f"{self._rng.randrange(1 << 25):08x}"  # NetID 000000
            if address not in self._addresses:
                return address

    # Uplinks

    def _data(self, heard: Heard, frame: DataFrame) -> None:
        dev_eui = self._addresses.get(frame.dev_addr)
        if dev_eui is None:
            return
        session = self.sessions[dev_eui]
        row = self._store.devices.get(dev_eui)
        if row.value.is_disabled:
            return
        counter = full_counter(session.f_cnt_up, frame.f_cnt)
        if counter < session.f_cnt_up and not row.value.skip_fcnt_check:
            if counter == session.f_cnt_up - 1:
                code = "UPLINK_F_CNT_RETRANSMISSION"
                text = "Uplink was flagged as re-transmission / frame-counter did not increment"
            else:
                code, text = "UPLINK_F_CNT_RESET", "Frame-counter reset or rollover detected"
            self._events.log(dev_eui, "WARNING", code, text)
            return
        session.f_cnt_up = counter + 1
        self.last_seen[dev_eui] = self._now()
        self.metrics.setdefault(dev_eui, LinkMetrics()).add(self._now(), heard)
        if not session.join_is_told:
            session.join_is_told = True
            self._events.join(dev_eui, session.dev_addr)
        deduplication_id = self._events.up(
            dev_eui,
            dev_addr=session.dev_addr,
            adr=frame.adr,
            dr=heard.data_rate,
            f_cnt=counter,
            f_port=frame.port or 0,
            confirmed=frame.confirmed,
            data=frame.data or b"",
            rx_info=[self._rx_info(heard, at) for at in range(len(heard.receptions))],
            tx_info=gw.UplinkTxInfo(frequency=heard.frequency, modulation=_modulation(heard.data_rate, down=False)),
        )
        if frame.ack:
            item = self.queue(dev_eui).acknowledged()
            if item is not None:
                self._events.ack(dev_eui, item, deduplication_id, acknowledged=True)
        due = self._timeline.now() + _DOWNLINK_DELAY_S
        self._timeline.at(due, lambda _: self._answer(heard, frame, session, deduplication_id))

    def _rx_info(self, heard: Heard, at: int) -> gw.UplinkRxInfo:
        reception = heard.receptions[at]
        info = gw.UplinkRxInfo(
            gateway_id=reception.gateway_id,
            uplink_id=self._rng.randrange(1, 1 << 32),
            rssi=reception.rssi,
            snr=reception.snr,
            channel=eu868.UPLINK_CHANNELS.index(heard.frequency),
            crc_status="CRC_OK",
        )
        info.ns_time.FromDatetime(self._now())
        return info

    # Downlinks

    def _answer(self, heard: Heard, frame: DataFrame, session: Session, deduplication_id: str) -> None:
        dev_eui = session.dev_eui
        if self.sessions.get(dev_eui) is not session:  # it has joined again meanwhile
            return
        room = eu868.FRM_PAYLOAD_MAX[eu868.rx1_data_rate(heard.data_rate, self.windows.rx1_dr_offset)]
        choice = self.queue(dev_eui).choose(room=room, next_counter=session.f_cnt_down, now=self._now())
        for reason, item in choice.discarded:
            if reason == "unacknowledged":
                self._events.ack(dev_eui, item, deduplication_id, acknowledged=False)
            else:
                self._events.discarded(dev_eui, item, reason, room=room, next_counter=session.f_cnt_down)
        if choice.item is None and not frame.confirmed:
            return
        self._send(heard, session, choice.item, more=choice.more, ack=frame.confirmed)

    def _send(self, heard: Heard, session: Session, item: Item | None, *, more: bool, ack: bool) -> None:
        counter = session.f_cnt_down
        empty = DataFrame(session.dev_addr, session.f_cnt_down & _UINT16, ack=ack, pending=item is not None)
        full, size = empty, eu868.frame_bytes(None)
        rx2, rx2_size = empty, size
        if item is not None:
            if item.is_encrypted:
                counter = item.f_cnt_down or 0
            full = DataFrame(
                session.dev_addr,
                counter & _UINT16,
                item.port,
                item.data,
                confirmed=item.confirmed,
                ack=ack,
                pending=more,
            )
            size = eu868.frame_bytes(item.data)
            # A payload too long for RX2 is left out there, and FPending says that it waits.
            if len(item.data) <= eu868.FRM_PAYLOAD_MAX[self.windows.rx2_data_rate]:
                rx2, rx2_size = full, size
        delays = (eu868.RX1_DELAY_S, eu868.RX2_DELAY_S)
        windows = self._opportunities(heard, delays, full, rx2, size, rx2_size)
        gateway_id = heard.receptions[0].gateway_id
        self._downlinks += 1
        number = self._downlinks

        def told(status: TxStatus, window: Opportunity) -> None:
            if status != "OK":
                self._events.gateway_error(session.dev_eui, status)
            elif item is None or not isinstance(window.frame, DataFrame) or window.frame.port is None:
                session.f_cnt_down += 1
            else:
                self.queue(session.dev_eui).sent(item, counter)
                session.f_cnt_down = counter + 1
                self._events.txack(session.dev_eui, item, number, gateway_id, _tx_info(window))

        self._air.send_down(heard.station, gateway_id, windows, now=self._timeline.now(), told=told)

    def _opportunities(
        self,
        heard: Heard,
        delays: tuple[float, float],
        rx1: DataFrame | JoinAccept,
        rx2: DataFrame | JoinAccept,
        rx1_size: int,
        rx2_size: int,
    ) -> list[Opportunity]:
        data_rate = eu868.rx1_data_rate(heard.data_rate, self.windows.rx1_dr_offset)
        return [
            Opportunity(heard.ended + delays[0], heard.frequency, data_rate, rx1, rx1_size),
            Opportunity(heard.ended + delays[1], eu868.RX2_FREQUENCY, self.windows.rx2_data_rate, rx2, rx2_size),
        ]


def full_counter(expected: int, on_air: int) -> int:
    """The 32-bit counter whose low half was on air: the nearest to what is expected next."""
    gap = (on_air - expected) & _UINT16
    return expected + gap - (0x10000 if gap >= 0x8000 and expected + gap >= 0x10000 else 0)


def _modulation(data_rate: int, *, down: bool) -> gw.Modulation:
    return gw.Modulation(
        lora=gw.LoraModulationInfo(
            bandwidth=eu868.BANDWIDTH_HZ,
            spreading_factor=eu868.SPREADING[data_rate],
            code_rate="CR_4_5",
            polarization_inversion=down,
        )
    )


def _tx_info(window: Opportunity) -> gw.DownlinkTxInfo:
    return gw.DownlinkTxInfo(
        frequency=window.frequency,
        power=_TX_POWER_DBM[eu868.sub_band(window.frequency)],
        modulation=_modulation(window.data_rate, down=True),
    )
