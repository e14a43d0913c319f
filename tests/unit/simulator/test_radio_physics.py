from __future__ import annotations

import pytest

from devices.simulator.chirpstack import eu868
from devices.simulator.chirpstack.gateway import Gateway, GatewaySpec

RX1 = eu868.UPLINK_CHANNELS[0]
GATEWAY = "0016c001f153a14c"


def gateway(**fields: object) -> Gateway:
    return Gateway(GatewaySpec(GATEWAY, **fields))  # type: ignore[arg-type]


@pytest.mark.parametrize(("size", "data_rate", "seconds"), [(13, 3, 0.164864), (10, 5, 0.041216), (10, 1, 0.577536)])
def test_airtime_is_that_of_the_published_examples(size: int, data_rate: int, seconds: float) -> None:
    assert eu868.airtime_s(size, data_rate, uplink=True) == pytest.approx(seconds, abs=1e-6)


@pytest.mark.parametrize(("data_rate", "seconds"), [(0, 2.793), (3, 0.677), (5, 0.394)])
def test_a_full_downlink_takes_what_was_computed_for_it(data_rate: int, seconds: float) -> None:
    size = eu868.FRAME_OVERHEAD + eu868.FRM_PAYLOAD_MAX[data_rate]
    assert eu868.airtime_s(size, data_rate, uplink=False) == pytest.approx(seconds, abs=5e-4)


def test_rx1_is_as_fast_as_the_uplink_less_the_offset_and_never_slower_than_dr0() -> None:
    assert [eu868.rx1_data_rate(rate, 2) for rate in range(6)] == [0, 0, 0, 1, 2, 3]


def test_a_frequency_outside_of_every_sub_band_is_refused() -> None:
    with pytest.raises(ValueError, match="867100000 Hz"):
        eu868.sub_band(867_100_000)


def test_a_gateway_sends_one_frame_at_a_time() -> None:
    box = gateway()
    assert box.transmit(now=0, start=1.0, frequency=RX1, airtime=0.5) == "OK"
    assert box.transmit(now=0, start=1.4, frequency=eu868.RX2_FREQUENCY, airtime=0.5) == "COLLISION_PACKET"
    assert box.transmit(now=0, start=1.5, frequency=RX1, airtime=0.5) == "OK"
    assert (box.traffic.frames_down, box.traffic.collision_refusals) == (2, 1)


def test_a_gateway_that_sends_is_deaf() -> None:
    box = gateway()
    box.transmit(now=0, start=1.0, frequency=RX1, airtime=0.5)
    assert [box.is_deaf(*span) for span in ((0.5, 1.0), (0.9, 1.1), (1.2, 1.3), (1.5, 2.0))] == [
        False,
        True,
        True,
        False,
    ]


def test_a_frame_that_comes_too_late_for_its_window_is_not_sent() -> None:
    box = gateway()
    assert box.transmit(now=1.0, start=1.0, frequency=RX1, airtime=0.1) == "TOO_LATE"
    assert box.traffic.frames_down == 0


def test_an_hour_holds_36_seconds_at_one_percent_and_360_at_ten() -> None:
    box = gateway()
    sent = [box.transmit(now=at, start=at + 1, frequency=RX1, airtime=1.0) for at in range(0, 80, 2)]
    assert sent.count("OK") == 36
    assert set(sent[36:]) == {"DUTY_CYCLE_OVERFLOW"}
    other = [
        box.transmit(now=at, start=at + 1, frequency=eu868.RX2_FREQUENCY, airtime=1.0) for at in range(100, 900, 2)
    ]
    assert other.count("OK") == 360
    assert box.traffic.duty_cycle_refusals == 4 + 40


def test_airtime_is_free_again_an_hour_later_frame_by_frame() -> None:
    box = gateway()
    for at in range(0, 72, 2):
        box.transmit(now=at, start=at + 1, frequency=RX1, airtime=1.0)
    assert box.transmit(now=3590, start=3600.5, frequency=RX1, airtime=1.0) == "DUTY_CYCLE_OVERFLOW"
    assert box.transmit(now=3599, start=3601.5, frequency=RX1, airtime=1.0) == "OK"
    assert box.transmit(now=3601, start=3602.5, frequency=RX1, airtime=1.0) == "DUTY_CYCLE_OVERFLOW"


def test_a_gateway_may_be_freed_of_the_duty_cycle() -> None:
    box = gateway(duty_cycle=False)
    assert all(box.transmit(now=at, start=at + 1, frequency=RX1, airtime=1.9) == "OK" for at in range(0, 200, 2))


@pytest.mark.parametrize("fields", [{"loss": 1.0}, {"backhaul_s": -1.0}])
def test_a_gateway_that_cannot_be_is_refused(fields: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=GATEWAY):
        GatewaySpec(GATEWAY, **fields)  # type: ignore[arg-type]
