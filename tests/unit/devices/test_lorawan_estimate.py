"""What a bundle costs over LoRaWAN, against the table of airtimes in the regional parameters."""

from __future__ import annotations

import pytest

from devices.links import link_for
from devices.links.base import Estimate, RadioFacts
from devices.models import HardwareProfile, LinkKind

LINK = link_for(LinkKind.LORAWAN)


def estimate(size: int, rate: int | None, region: str = "EU868", **profile: float) -> Estimate:
    radio = RadioFacts(region=region, data_rate=rate, gateway_id="g")
    return LINK.estimate(profile=HardwareProfile(**profile), size=size, radio=radio)


@pytest.mark.parametrize(
    ("size", "rate", "fragments", "seconds"),
    [(2048, 0, 43, 120.1), (2048, 3, 19, 12.9), (10240, 0, 214, 597.8), (10240, 5, 43, 16.9), (40960, 3, 366, 247.6)],
)
def test_fragments_and_gateway_airtime_are_those_of_full_frames(
    size: int, rate: int, fragments: int, seconds: float
) -> None:
    empty, whole = estimate(0, rate), estimate(size, rate)
    assert whole.frames - empty.frames == 2 * fragments
    assert whole.gateway_airtime_s - empty.gateway_airtime_s == pytest.approx(seconds, rel=0.01)
    assert whole.airtime_s > whole.gateway_airtime_s


def test_hours_go_by_the_duty_cycle_where_there_is_one() -> None:
    assert estimate(2048, 0).hours == pytest.approx(120.1 / 0.01 / 3600, rel=0.15)
    assert estimate(2048, 0, region="US915").hours < 0.1


def test_a_faster_rate_costs_less() -> None:
    hours = [estimate(10_240, rate).hours for rate in range(6)]
    assert hours == sorted(hours, reverse=True)


@pytest.mark.parametrize("radio", [None, RadioFacts("EU868", None), RadioFacts("EU868", 12)])
def test_what_is_not_known_is_taken_for_the_slowest_and_said_so(radio: RadioFacts | None) -> None:
    unknown = LINK.estimate(profile=HardwareProfile(), size=2048, radio=radio)
    assert unknown.frames == estimate(2048, 0).frames
    assert unknown.assumed == "data rate not known, DR0 of EU868 taken"
    assert estimate(2048, 0).assumed == ""


def test_energy_needs_the_figure_of_the_profile() -> None:
    assert estimate(1024, 5).energy_j is None
    assert (estimate(1024, 5, radio_joules_per_kibibyte=2.0).energy_j or 0) > 2.0


def test_a_negative_size_is_refused() -> None:
    with pytest.raises(ValueError, match="size"):
        estimate(-1, 0)
