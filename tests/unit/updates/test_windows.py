"""Windows in a node's local time: a window is open while a clock on the node's wall shows a time in it."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from time import process_time
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from updates.campaigns.windows import Calendar, WindowError, open_zones

BERLIN = "Europe/Berlin"
NIGHTLY = {"transfer": [{"start": "22:00", "end": "05:00"}]}
ZONES = [BERLIN, "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "Pacific/Apia", ""]


def calendar(*windows: dict[str, Any], blackout: Any = ()) -> Calendar:
    return Calendar.read({"transfer": list(windows), "blackout": list(blackout)})


def open_minutes(one: Calendar, begin: datetime, hours: int, zone: str) -> int:
    return sum(one.transfer_open(begin + timedelta(minutes=minute), zone) for minute in range(60 * hours))


def test_a_night_window_reaches_into_the_next_morning() -> None:
    one = Calendar.read(NIGHTLY)
    at = {hour: one.transfer_open(datetime(2026, 6, 10, hour, tzinfo=UTC), "") for hour in (4, 5, 21, 22, 23)}
    assert at == {4: True, 5: False, 21: False, 22: True, 23: True}


def test_the_same_instant_is_night_in_one_zone_and_day_in_another() -> None:
    one = Calendar.read(NIGHTLY)
    zones = open_zones(
        one, at=datetime(2026, 6, 10, 3, 30, tzinfo=UTC), zones=[BERLIN, "Asia/Tokyo", "America/New_York", ""]
    )
    assert zones == ["America/New_York", ""]


@pytest.mark.parametrize(("day", "hours"), [(date(2026, 3, 28), 6), (date(2026, 6, 10), 7), (date(2026, 10, 24), 8)])
def test_a_night_lasts_an_hour_less_when_the_clock_is_set_on_and_one_more_when_it_is_set_back(
    day: date, hours: int
) -> None:
    noon = datetime.combine(day, time(12), ZoneInfo(BERLIN)).astimezone(UTC)
    assert open_minutes(Calendar.read(NIGHTLY), noon, 24, BERLIN) == 60 * hours


def test_a_window_in_the_hour_that_the_clock_skips_does_not_come_that_day() -> None:
    one = calendar({"start": "02:15", "end": "02:45"})
    assert open_minutes(one, datetime(2026, 3, 29, 0, 0, tzinfo=UTC), 4, BERLIN) == 0
    assert one.next_transfer(datetime(2026, 3, 29, 0, 0, tzinfo=UTC), BERLIN) == datetime(
        2026, 3, 30, 0, 15, tzinfo=UTC
    )


def test_a_window_in_the_hour_that_comes_twice_comes_twice() -> None:
    one = calendar({"start": "02:15", "end": "02:45"})
    assert open_minutes(one, datetime(2026, 10, 25, 0, 0, tzinfo=UTC), 3, BERLIN) == 60


def test_a_window_that_the_clock_jumps_into_opens_at_the_jump() -> None:
    one = calendar({"start": "02:30", "end": "04:00"})
    assert one.next_transfer(datetime(2026, 3, 29, 0, 0, tzinfo=UTC), BERLIN) == datetime(2026, 3, 29, 1, 0, tzinfo=UTC)


def test_a_recurrence_names_the_days_on_which_a_window_begins() -> None:
    one = calendar({"rrule": "FREQ=WEEKLY;BYDAY=MO,TU,WE,TH", "start": "22:00", "end": "05:00"})
    thursday_night, friday_night = datetime(2026, 6, 12, 3, tzinfo=UTC), datetime(2026, 6, 13, 3, tzinfo=UTC)
    assert one.transfer_open(thursday_night, "")
    assert not one.transfer_open(friday_night, "")


def test_every_second_week_counts_from_its_date() -> None:
    one = calendar({"rrule": "FREQ=WEEKLY;INTERVAL=2;BYDAY=MO", "from": "2026-06-01", "start": "01:00", "end": "02:00"})
    mondays = [datetime(2026, 6, day, 1, 30, tzinfo=UTC) for day in (1, 8, 15, 22)]
    assert [one.transfer_open(at, "") for at in mondays] == [True, False, True, False]


@pytest.mark.parametrize("until", ["20260602", "20260602T000000", "20260602T235959Z"])
def test_the_last_day_may_be_written_as_calendars_write_it_and_is_a_local_date(until: str) -> None:
    one = calendar({"rrule": f"FREQ=DAILY;UNTIL={until};INTERVAL=1", "start": "01:00", "end": "02:00"})
    assert [one.transfer_open(datetime(2026, 6, day, 1, 30, tzinfo=UTC), "") for day in (2, 3)] == [True, False]


def test_a_rule_that_no_day_meets_is_found_out_soon() -> None:
    begun = process_time()
    one = calendar({"rrule": "FREQ=MONTHLY;BYMONTH=2;BYMONTHDAY=30", "start": "01:00", "end": "02:00"})
    assert one.next_transfer(datetime(2026, 6, 1, tzinfo=UTC), "") is None
    assert process_time() - begun < 2


def test_a_blackout_closes_every_window_on_its_local_dates() -> None:
    one = calendar({"start": "22:00", "end": "05:00"}, blackout=[{"from": "2026-12-24", "to": "2026-12-26"}])
    before = datetime(2026, 12, 23, 23, 30, tzinfo=UTC)
    assert one.transfer_open(before, "")
    assert not one.transfer_open(before, BERLIN)
    assert one.next_transfer(datetime(2026, 12, 24, tzinfo=UTC), "") == datetime(2026, 12, 27, tzinfo=UTC)


def test_transfer_and_activation_are_apart() -> None:
    one = Calendar.read({**NIGHTLY, "activation": [{"start": "12:00", "end": "13:00"}]})
    noon = datetime(2026, 6, 10, 12, 30, tzinfo=UTC)
    assert (one.transfer_open(noon, ""), one.activation_open(noon, "")) == (False, True)


def test_no_window_means_always() -> None:
    now = datetime(2026, 6, 10, 12, 30, tzinfo=UTC)
    assert Calendar.read({}).transfer_open(now, BERLIN)
    assert Calendar.read({}).next_transfer(now, BERLIN) == now


windows = st.fixed_dictionaries(
    {
        "rrule": st.sampled_from(
            ["FREQ=DAILY", "FREQ=WEEKLY;BYDAY=SU", "FREQ=MONTHLY;BYDAY=-1SU", "FREQ=WEEKLY;BYDAY=SA,MO"]
        ),
        "start": st.times().map(lambda one: one.strftime("%H:%M")),
        "end": st.times().map(lambda one: one.strftime("%H:%M")),
    }
).filter(lambda one: one["start"] != one["end"])


@settings(max_examples=150, deadline=None)
@given(
    parts=st.lists(windows, min_size=1, max_size=3),
    zone=st.sampled_from(ZONES),
    near=st.sampled_from([date(2026, 3, 29), date(2026, 10, 25), date(2026, 4, 5), date(2026, 3, 8), date(2026, 7, 1)]),
    minutes=st.integers(-2880, 2880),
)
def test_the_next_opening_is_open_and_nothing_before_it_is(
    parts: list[dict[str, Any]], zone: str, near: date, minutes: int
) -> None:
    one = calendar(*parts)
    at = datetime.combine(near, time(), UTC) + timedelta(minutes=minutes)
    found = one.next_transfer(at, zone)
    assert found is not None
    assert one.transfer_open(found, zone)
    until = min(found, at + timedelta(days=3))
    assert not any(
        one.transfer_open(at + timedelta(minutes=m), zone) for m in range(int((until - at).total_seconds() // 60))
    )


@settings(max_examples=150, deadline=None)
@given(part=windows, zone=st.sampled_from(ZONES), at=st.datetimes(datetime(2025, 1, 1), datetime(2028, 1, 1)))
def test_a_daily_window_is_open_exactly_while_the_local_clock_shows_a_time_in_it(
    part: dict[str, Any], zone: str, at: datetime
) -> None:
    instant = at.replace(tzinfo=UTC)
    shown = instant.astimezone(ZoneInfo(zone or "UTC")).strftime("%H:%M:%S.%f")
    start, end = part["start"], part["end"]
    inside = start <= shown < end if start < end else shown >= start or shown < end
    assert calendar({**part, "rrule": "FREQ=DAILY"}).transfer_open(instant, zone) == inside


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"transfers": []}, "windows.transfers: is unknown"),
        ({"transfer": "nightly"}, "windows.transfer: give a list"),
        ({"transfer": [{"start": "22:00"}]}, "windows.transfer.0.end: is None; give local hours"),
        ({"transfer": [{"start": "25:00", "end": "05:00"}]}, "windows.transfer.0.start: is '25:00'"),
        ({"transfer": [{"start": "22:00", "end": "22:00"}]}, "windows.transfer.0.end: is 22:00 like the start"),
        ({"transfer": [{"start": "22:00", "end": "05:00", "rrule": "FREQ=HOURLY"}]}, "FREQ must be one of DAILY"),
        ({"transfer": [{"start": "22:00", "end": "05:00", "rrule": "FREQ=DAILY;BYHOUR=3"}]}, "has 'BYHOUR'; days only"),
        (
            {"transfer": [{"start": "22:00", "end": "05:00", "rrule": "FREQ=DAILY;BYMONTH=2;BYMONTHDAY=30"}]},
            "has BYMONTHDAY with FREQ=DAILY; write FREQ=MONTHLY",
        ),
        (
            {"transfer": [{"start": "22:00", "end": "05:00", "rrule": "FREQ=DAILY;INTERVAL=2"}]},
            "transfer.0.from: is missing",
        ),
        (
            {"transfer": [{"start": "22:00", "end": "05:00", "rrule": "FREQ=WEEKLY;BYDAY=XX"}]},
            "windows.transfer.0.rrule",
        ),
        ({"activation": [{"start": "1:00", "end": "05:00"}]}, "windows.activation.0.start"),
        ({"blackout": [{"from": "24.12.2026"}]}, "windows.blackout.0.from: is '24.12.2026'; give a date"),
        ({"blackout": [{"from": "2026-12-24", "to": "2026-12-23"}]}, "windows.blackout.0.to: is 2026-12-23, before"),
    ],
)
def test_what_cannot_be_read_is_refused_with_field_value_and_fix(values: dict[str, Any], message: str) -> None:
    with pytest.raises(WindowError) as caught:
        Calendar.read(values)
    assert message in str(caught.value)
