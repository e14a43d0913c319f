"""Airtime and data rates against published examples (docs/lorawan.md, AN1200.13)."""

from __future__ import annotations

import pytest

from devices.links.lorawan.airtime import fsk_s, lora_s
from devices.links.lorawan.regions import AS923, EU868, REGIONS, US915, region_of


@pytest.mark.parametrize(
    ("size", "spreading_factor", "milliseconds"), [(13, 9, 164.864), (10, 7, 41.216), (10, 11, 577.536)]
)
def test_airtime_matches_the_published_examples(size: int, spreading_factor: int, milliseconds: float) -> None:
    assert lora_s(size, spreading_factor=spreading_factor) * 1000 == pytest.approx(milliseconds)


@pytest.mark.parametrize(("rate", "seconds"), [(0, 2.793), (3, 0.677), (5, 0.394)])
def test_a_full_downlink_takes_as_long_as_measured(rate: int, seconds: float) -> None:
    assert EU868.downlink_airtime_s(EU868.downlink_limit(rate), rate) == pytest.approx(seconds, abs=0.001)


def test_a_downlink_has_no_crc_and_so_may_be_shorter() -> None:
    down, up = (sum(way(size, 0) for size in range(20)) for way in (EU868.downlink_airtime_s, EU868.uplink_airtime_s))
    assert down < up


def test_fsk_goes_by_bits() -> None:
    assert fsk_s(50) == pytest.approx((11 + 50) * 8 / 50_000)


@pytest.mark.parametrize("bad", [6, 13])
def test_an_unknown_spreading_factor_is_refused(bad: int) -> None:
    with pytest.raises(ValueError, match="spreading factor"):
        lora_s(10, spreading_factor=bad)


def test_a_fragment_fills_the_downlink_of_the_nodes_data_rate() -> None:
    assert [EU868.fragment_bytes(rate) for rate in range(6)] == [48, 48, 48, 112, 239, 239]
    assert [US915.fragment_bytes(rate) for rate in range(5)] == [239] * 5
    assert AS923.fragment_bytes(6) == 239


def test_us915_answers_on_its_wide_channels() -> None:
    assert [US915.rx1_rate(rate) for rate in range(5)] == [10, 11, 12, 13, 13]


def test_as923_answers_at_dr5_at_most() -> None:
    assert AS923.rx1_rate(7) == 5


@pytest.mark.parametrize("region", REGIONS.values(), ids=list(REGIONS))
def test_an_unknown_data_rate_counts_as_the_slowest(region: object) -> None:
    assert region.fragment_bytes(None) == region.fragment_bytes(0)  # type: ignore[attr-defined]
    assert region.rx1_rate(99) == region.rx1_rate(0)  # type: ignore[attr-defined]


def test_the_duty_cycle_goes_by_the_band() -> None:
    assert EU868.duty() == 0.01
    assert EU868.duty(869_525_000) == 0.10
    assert EU868.duty(868_800_000) == 0.001
    assert US915.duty() == 1.0


@pytest.mark.parametrize(
    ("config", "region"),
    [
        ("eu868", "EU868"),
        ("us915_0", "US915"),
        ("as923_2", "AS923"),
        ("eu868-plant", "EU868"),
        ("cn470_10", None),
        ("", None),
    ],
)
def test_the_region_follows_from_chirpstacks_configuration(config: str, region: str | None) -> None:
    assert region_of(config) == region
