"""When a campaign may use a node: windows in the node's local time, minus blackout dates.

A window is open while a clock on the node's wall shows a time in it. That settles daylight saving: of a night in which
the clock is set back, the hour that comes twice is in the window twice; times that the clock skips never come. Windows are
civil time: fleet time does not speed them up.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

from dateutil.rrule import rrule, rruleset, rrulestr

# A Monday; recurrences without a `from` count from here.
ANCHOR = date(2024, 1, 1)
HORIZON_DAYS = 366
MAXIMUM_WINDOWS = 20
MAXIMUM_BLACKOUTS = 200
_PARTS = {
    "FREQ",
    "INTERVAL",
    "COUNT",
    "UNTIL",
    "WKST",
    "BYDAY",
    "BYMONTHDAY",
    "BYMONTH",
    "BYSETPOS",
    "BYYEARDAY",
    "BYWEEKNO",
}
_FREQUENCIES = ("DAILY", "WEEKLY", "MONTHLY", "YEARLY")
# Parts that these frequencies may not have. Rules with them that no day meets would be looked for to the year 9999, day by
# day; months and years are soon through.
_UNFIT = {
    "DAILY": {"BYMONTHDAY", "BYYEARDAY", "BYWEEKNO", "BYSETPOS"},
    "WEEKLY": {"BYMONTHDAY", "BYYEARDAY", "BYWEEKNO"},
}
_DAY = timedelta(days=1)


class WindowError(ValueError):
    """`field` is where, such as windows.transfer.0.rrule."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field


@lru_cache(maxsize=256)
def _rule(text: str, anchor: date) -> rrule:
    # UNTIL of calendars is an instant in UTC; here it is a local date, as all of a window is civil time.
    until = re.search(r"UNTIL=(\d{8})(T\d{6}Z?)?(;|$)", text)
    if until:
        text = text.replace(until[0], f"UNTIL={until[1]}{until[3]}")
    rule = rrulestr(text, dtstart=datetime.combine(anchor, time()), cache=True)
    if isinstance(rule, rruleset):
        raise ValueError("one RRULE only")
    return rule


@lru_cache(maxsize=8192)
def _occurs(text: str, anchor: date, day: date) -> bool:
    at = datetime.combine(day, time())
    return at in _rule(text, anchor)


@dataclass(frozen=True)
class Window:
    """From `start` to before `end`, local, on each day of the recurrence; an end not after the start is the next day's.

    `rrule`: RFC 5545, of whole days, counted from `anchor`.
    """

    rrule: str
    start: time
    end: time
    anchor: date = ANCHOR

    def begins_on(self, day: date) -> bool:
        return day >= self.anchor and _occurs(self.rrule, self.anchor, day)

    def shows(self, wall: datetime) -> bool:
        """Whether a clock that shows `wall` (no zone) is in the window."""
        if self.end > self.start:
            return self.begins_on(wall.date()) and self.start <= wall.time() < self.end
        begun_today = wall.time() >= self.start and self.begins_on(wall.date())
        return begun_today or (wall.time() < self.end and self.begins_on(wall.date() - _DAY))


@dataclass(frozen=True)
class Blackout:
    """Local dates, both included, on which nothing happens whatever the windows say."""

    first: date
    last: date


@dataclass(frozen=True)
class Calendar:
    """Windows for the transfer and for the activation, apart, and the dates that close both. No window: always."""

    transfer: tuple[Window, ...] = ()
    activation: tuple[Window, ...] = ()
    blackout: tuple[Blackout, ...] = ()

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> Calendar:
        """From {"transfer": [window], "activation": [window], "blackout": [{"from": date, "to": date}]} as JSON has it.

        A window: {"rrule": "FREQ=WEEKLY;BYDAY=MO,TU", "start": "22:00", "end": "05:00", "from": date}; all but start and
        end may be left out. Raises WindowError that names field, value and fix.
        """
        if unknown := set(values) - {"transfer", "activation", "blackout"}:
            raise WindowError(f"windows.{min(unknown)}", "is unknown; known are activation, blackout, transfer")
        parts: dict[str, list[Any]] = {}
        for name, most in (
            ("transfer", MAXIMUM_WINDOWS),
            ("activation", MAXIMUM_WINDOWS),
            ("blackout", MAXIMUM_BLACKOUTS),
        ):
            part = values.get(name) or []
            if not isinstance(part, Sequence) or isinstance(part, str) or len(part) > most:
                raise WindowError(f"windows.{name}", f"give a list of at most {most}")
            parts[name] = list(part)
        return cls(
            transfer=tuple(_window(f"windows.transfer.{i}", one) for i, one in enumerate(parts["transfer"])),
            activation=tuple(_window(f"windows.activation.{i}", one) for i, one in enumerate(parts["activation"])),
            blackout=tuple(_blackout(f"windows.blackout.{i}", one) for i, one in enumerate(parts["blackout"])),
        )

    def transfer_open(self, at: datetime, zone: str) -> bool:
        """Whether a transfer may begin at this instant at a node of this zone (IANA name; empty: UTC)."""
        return self._open(self.transfer, at, zone)

    def activation_open(self, at: datetime, zone: str) -> bool:
        return self._open(self.activation, at, zone)

    def next_transfer(self, at: datetime, zone: str) -> datetime | None:
        """The first instant from `at` on that is open, in UTC; None where none comes within a year."""
        return self._next(self.transfer, at, zone)

    def next_activation(self, at: datetime, zone: str) -> datetime | None:
        return self._next(self.activation, at, zone)

    def _open(self, windows: tuple[Window, ...], at: datetime, zone: str) -> bool:
        wall = at.astimezone(_zone(zone)).replace(tzinfo=None)
        if any(one.first <= wall.date() <= one.last for one in self.blackout):
            return False
        return not windows or any(window.shows(wall) for window in windows)

    def _next(self, windows: tuple[Window, ...], at: datetime, zone: str) -> datetime | None:
        if self._open(windows, at, zone):
            return at.astimezone(UTC)
        local = at.astimezone(_zone(zone)).date()
        # A window can only open at its start, at midnight after a blackout, or where the clock itself jumps into it.
        times = {time(), *(window.start for window in windows)}
        for offset in range(-1, HORIZON_DAYS):
            day = local + offset * _DAY
            instants = sorted({instant for one in times for instant in _instants(day, one, zone)} | _jumps(day, zone))
            for instant in instants:
                if instant >= at and self._open(windows, instant, zone):
                    return instant
        return None


@lru_cache(maxsize=1024)
def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name or "UTC")


def _instants(day: date, wall: time, zone: str) -> list[datetime]:
    """The instants at which a clock there shows this: two in a night set back, one that is never shown gives its gap's end."""
    both = [datetime.combine(day, wall, _zone(zone)).replace(fold=fold).astimezone(UTC) for fold in (0, 1)]
    return sorted(set(both))


@lru_cache(maxsize=4096)
def _jumps(day: date, zone: str) -> frozenset[datetime]:
    """The instant on this local day at which the clock is set, if there is one; in UTC, to the minute."""
    begin, end = (datetime.combine(one, time(), _zone(zone)).astimezone(UTC) for one in (day, day + _DAY))
    if begin.astimezone(_zone(zone)).utcoffset() == end.astimezone(_zone(zone)).utcoffset():
        return frozenset()
    low, high = begin, end
    while high - low > timedelta(minutes=1):
        middle = low + timedelta(minutes=(high - low) // timedelta(minutes=2))
        same = middle.astimezone(_zone(zone)).utcoffset() == begin.astimezone(_zone(zone)).utcoffset()
        low, high = (middle, high) if same else (low, middle)
    return frozenset({high})


def _window(field: str, values: Any) -> Window:
    if not isinstance(values, Mapping):
        raise WindowError(field, f"is {values!r}; give start and end, and an rrule where not every day is meant")
    if unknown := set(values) - {"rrule", "start", "end", "from"}:
        raise WindowError(f"{field}.{min(unknown)}", "is unknown; known are end, from, rrule, start")
    text = values.get("rrule") or "FREQ=DAILY"
    anchor = _date(f"{field}.from", values["from"]) if values.get("from") else None
    parts = _parts(f"{field}.rrule", text)
    if anchor is None and ("COUNT" in parts or parts.get("INTERVAL", "1") != "1"):
        raise WindowError(f"{field}.from", f"is missing; {text} counts from a date, such as 2026-01-05")
    start, end = (_time(f"{field}.{name}", values.get(name)) for name in ("start", "end"))
    if start == end:
        raise WindowError(
            f"{field}.end", f"is {end:%H:%M} like the start; leave the windows out where all day is meant"
        )
    return Window(rrule=text, start=start, end=end, anchor=anchor or ANCHOR)


def _parts(field: str, text: Any) -> dict[str, str]:
    advice = "give one such as FREQ=WEEKLY;BYDAY=MO,TU,WE,TH"
    if not isinstance(text, str) or len(text) > 200:
        raise WindowError(field, f"is {text!r}; {advice}")
    parts = dict(part.partition("=")[::2] for part in text.upper().split(";"))
    if parts.get("FREQ") not in _FREQUENCIES:
        raise WindowError(field, f"is {text!r}; FREQ must be one of {', '.join(_FREQUENCIES)}; {advice}")
    if unknown := set(parts) - _PARTS:
        raise WindowError(field, f"has {min(unknown)!r}; days only, the time stands in start and end; {advice}")
    if unfit := set(parts) & _UNFIT.get(parts["FREQ"], set()):
        raise WindowError(field, f"has {min(unfit)} with FREQ={parts['FREQ']}; write FREQ=MONTHLY or YEARLY with it")
    try:
        _rule(text, ANCHOR)
    except (ValueError, TypeError, KeyError) as error:
        raise WindowError(field, f"is {text!r}: {error}; {advice}") from error
    return parts


def _blackout(field: str, values: Any) -> Blackout:
    if not isinstance(values, Mapping) or "from" not in values or set(values) - {"from", "to"}:
        raise WindowError(field, f'is {values!r}; give {{"from": "2026-12-24", "to": "2027-01-01"}}')
    first = _date(f"{field}.from", values["from"])
    last = _date(f"{field}.to", values["to"]) if values.get("to") else first
    if last < first:
        raise WindowError(f"{field}.to", f"is {last}, before {first}; give the last date of the blackout")
    return Blackout(first, last)


def _date(field: str, value: Any) -> date:
    try:
        return date.fromisoformat(value)
    except (ValueError, TypeError) as error:
        raise WindowError(field, f"is {value!r}; give a date such as 2026-12-24") from error


def _time(field: str, value: Any) -> time:
    try:
        if len(value) != 5:
            raise ValueError("hours and minutes only")
        return time.fromisoformat(value)
    except (ValueError, TypeError) as error:
        raise WindowError(field, f"is {value!r}; give local hours and minutes such as 22:00") from error


def open_zones(calendar: Calendar, *, at: datetime, zones: Iterable[str]) -> list[str]:
    """Those of `zones` in which a transfer may begin now."""
    return [zone for zone in zones if calendar.transfer_open(at, zone)]
