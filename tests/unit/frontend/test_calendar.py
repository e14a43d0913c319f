from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from frontend.calendar import MAXIMUM_TICKS, WaveDates, calendar, wave_dates

START = datetime(2026, 10, 24, 20, 0, tzinfo=UTC)  # 22:00 in Berlin, in the night in which the clocks go back


@pytest.fixture(autouse=True)
def real_time(settings: Any) -> None:
    settings.TIME_SCALE = 1.0


def dates(nodes: int = 10, *, soak_hours: float = 48, hours: float = 7) -> list[WaveDates]:
    waves = [
        {"index": index, "percent": percent, "nodes": nodes, "soak_s": int(soak_hours * 3600)}
        for index, percent in enumerate((10, 100))
    ]
    return wave_dates(start=START, waves=waves, transfer_hours=hours, patience_s=4 * 86400)


def test_a_wave_opens_when_the_gate_of_the_one_before_has_decided() -> None:
    first, second = dates()

    assert first.transferred == START + timedelta(hours=7)
    assert first.gate == START + timedelta(hours=55)
    assert second.opens == first.gate
    assert second.gate == START + timedelta(hours=110)
    # Twice: 7 h of transfer that begins after 4 days, and 48 h of soak.
    assert second.latest == START + timedelta(days=12, hours=14)


def test_the_latest_date_is_never_before_the_earliest() -> None:
    slow = dates(hours=1000)

    assert all(one.latest >= one.gate for one in slow)


def test_a_wave_without_nodes_soaks_and_transfers_nothing() -> None:
    first, _ = dates(nodes=0)

    assert first.transferred == START
    assert first.gate == first.latest == START + timedelta(hours=48)


def test_fleet_time_shortens_what_stands_on_the_calendar(settings: Any) -> None:
    settings.TIME_SCALE = 60.0

    assert dates()[0].gate == START + timedelta(minutes=55)


def test_soaking_is_counted_in_hours_that_pass_when_the_clocks_go_back_in_berlin() -> None:
    found = calendar(dates(soak_hours=24, hours=0), zone="Europe/Berlin")

    # 24 h later the clock on the wall shows 21:00, for the night had 25 h.
    first = found.bars[0].dates.gate
    assert first == START + timedelta(hours=24)
    assert found.change == "The clocks change meanwhile, from CEST to CET."
    assert found.zone == "Europe/Berlin"


def test_ticks_stand_at_midnight_in_the_zone_and_the_long_day_is_an_hour_wider() -> None:
    found = calendar(dates(), zone="Europe/Berlin")

    assert [tick.label for tick in found.ticks] == [
        "Sun 25 Oct",
        "Mon 26 Oct",
        "Tue 27 Oct",
        "Wed 28 Oct",
        "Thu 29 Oct",
    ]
    assert found.ticks[1].at - found.ticks[0].at == timedelta(hours=25)
    assert found.ticks[2].at - found.ticks[1].at == timedelta(hours=24)
    assert found.ticks[0].x == pytest.approx(100 * 2 / 110)


@pytest.mark.parametrize("soak_hours", [0, 0.01, 1, 30, 24 * 90])
def test_every_span_has_a_picture_within_its_frame(soak_hours: float) -> None:
    found = calendar(dates(soak_hours=soak_hours, hours=0.01), zone="Asia/Kathmandu")

    assert len(found.ticks) <= MAXIMUM_TICKS
    for bar in found.bars:
        assert 0 <= bar.opens_x <= bar.transferred_x <= bar.gate_x <= 100.0001
    assert all(0 <= tick.x <= 100 for tick in found.ticks)
