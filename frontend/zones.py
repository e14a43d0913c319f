"""Wall clocks: what people type and read in a time zone, and the instants that are stored."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo, available_timezones

# Continents and oceans of the IANA database; the rest of it are aliases.
_AREAS = ("Africa", "America", "Antarctica", "Asia", "Atlantic", "Australia", "Europe", "Indian", "Pacific")


class NoSuchTime(ValueError):
    """A wall clock in this zone never shows the time, or shows it twice; the message says what to write."""


@cache
def choices() -> list[tuple[str, str | list[tuple[str, str]]]]:
    """For a select: UTC, then the zones of each area."""
    names = sorted(available_timezones())
    groups: list[tuple[str, str | list[tuple[str, str]]]] = [("UTC", "UTC")]
    for area in _AREAS:
        prefix = f"{area}/"
        groups.append((area, [(n, n.removeprefix(prefix).replace("_", " ")) for n in names if n.startswith(prefix)]))
    return groups


def instant(wall: datetime, zone: str) -> datetime:
    """The UTC instant at which a clock of the zone shows `wall` (which has no zone). Raises NoSuchTime."""
    local = wall.replace(tzinfo=ZoneInfo(zone))
    first, second = (local.replace(fold=fold).astimezone(UTC) for fold in (0, 1))
    if first == second:
        return first
    day, hour = f"{wall:%-d %B %Y}", f"{wall:%H:%M}"
    # In a gap the two readings are in the wrong order.
    if first > second:
        later = (wall + (first - second)).strftime("%H:%M")
        raise NoSuchTime(f"{hour} does not exist on {day} in {zone}: the clocks go forward. Write {later} instead.")
    raise NoSuchTime(
        f"{hour} comes twice on {day} in {zone}: the clocks go back. Choose UTC as the zone and write {first:%H:%M} for "
        f"the first or {second:%H:%M} for the second."
    )


def in_zone(at: datetime, zone: str) -> str:
    """Mon 30 Nov 2026, 22:00 CET."""
    local = at.astimezone(ZoneInfo(zone))
    return f"{local:%a %-d %b %Y, %H:%M} {zone_name(local)}"


def zone_name(local: datetime) -> str:
    """CET, or UTC+03 where the zone has no letters."""
    name = local.strftime("%Z")
    return f"UTC{name}" if name[:1] in "+-" else name


def midnights(first: datetime, last: datetime, zone: str, *, every: int = 1) -> list[datetime]:
    """Instants at which a day begins in the zone, each `every`th, from after `first` to before `last`."""
    here = ZoneInfo(zone)
    day = first.astimezone(here).date() + timedelta(days=1)
    found = []
    while (at := datetime(day.year, day.month, day.day, tzinfo=here).astimezone(UTC)) < last:
        found.append(at)
        day += timedelta(days=every)
    return found
