from __future__ import annotations

from datetime import UTC, datetime

import pytest

from frontend import zones


def test_a_wall_clock_in_berlin_is_an_instant_before_and_after_the_clocks_change() -> None:
    assert zones.instant(datetime(2026, 10, 24, 22, 0), "Europe/Berlin") == datetime(2026, 10, 24, 20, 0, tzinfo=UTC)
    assert zones.instant(datetime(2026, 10, 25, 22, 0), "Europe/Berlin") == datetime(2026, 10, 25, 21, 0, tzinfo=UTC)


def test_a_time_that_the_clocks_skip_is_refused_with_the_time_that_comes_instead() -> None:
    with pytest.raises(zones.NoSuchTime, match=r"02:30 does not exist on 28 March 2027 in Europe/Berlin.*Write 03:30"):
        zones.instant(datetime(2027, 3, 28, 2, 30), "Europe/Berlin")


def test_a_time_that_comes_twice_is_refused_with_both_instants() -> None:
    with pytest.raises(zones.NoSuchTime, match=r"comes twice.*write 00:30 for the first or 01:30 for the second"):
        zones.instant(datetime(2026, 10, 25, 2, 30), "Europe/Berlin")


@pytest.mark.parametrize(
    ("zone", "text"),
    [
        ("Europe/Berlin", "Mon 30 Nov 2026, 22:00 CET"),
        ("UTC", "Mon 30 Nov 2026, 21:00 UTC"),
        ("America/Sao_Paulo", "Mon 30 Nov 2026, 18:00 UTC-03"),
    ],
)
def test_a_time_is_shown_with_its_zone(zone: str, text: str) -> None:
    assert zones.in_zone(datetime(2026, 11, 30, 21, 0, tzinfo=UTC), zone) == text


def test_days_begin_at_the_zones_own_midnight_over_a_change_of_clocks() -> None:
    first, last = datetime(2026, 10, 24, 12, tzinfo=UTC), datetime(2026, 10, 27, 12, tzinfo=UTC)

    found = zones.midnights(first, last, "Europe/Berlin")

    assert [f"{at:%d %H}" for at in found] == ["24 22", "25 23", "26 23"]


def test_the_select_offers_utc_first_and_every_continent() -> None:
    offered = zones.choices()

    assert offered[0] == ("UTC", "UTC")
    assert ("Europe/Berlin", "Berlin") in dict(offered)["Europe"]
