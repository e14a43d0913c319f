"""The waves of a plan on a calendar: dates, and the geometry of their picture (percent of its width)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from fleet.clock import fleet_time
from frontend import zones

# A label needs about a seventh of a wide picture.
MAXIMUM_TICKS = 7
_STEPS = [timedelta(minutes=m) for m in (1, 5, 15, 60, 180, 360, 720)]
LABEL_ON_THE_LEFT_FROM = 70.0


@dataclass(frozen=True)
class WaveDates:
    """When a wave opens, its transfers are over, and its gate decides, if each node takes its offer up at once;
    `latest` is when the gate decides if nodes use all the time that the campaign leaves them."""

    index: int
    percent: float
    nodes: int
    soak_s: int
    opens: datetime
    transferred: datetime
    gate: datetime
    latest: datetime


@dataclass(frozen=True)
class Bar:
    dates: WaveDates
    opens_x: float
    transferred_x: float
    gate_x: float

    @property
    def transfer_width(self) -> float:
        """At least a sliver that can be seen."""
        return max(0.6, self.transferred_x - self.opens_x)

    @property
    def soak_width(self) -> float:
        return max(0.0, self.gate_x - self.transferred_x)

    @property
    def label_left(self) -> bool:
        return self.gate_x > LABEL_ON_THE_LEFT_FROM


@dataclass(frozen=True)
class Tick:
    at: datetime
    x: float
    label: str


@dataclass(frozen=True)
class WaveCalendar:
    zone: str
    bars: list[Bar]
    ticks: list[Tick]
    # What the clocks do meanwhile, where they change.
    change: str

    @property
    def ends(self) -> datetime:
        return self.bars[-1].dates.gate

    @property
    def latest(self) -> datetime:
        return self.bars[-1].dates.latest


def wave_dates(
    *, start: datetime, waves: Sequence[Mapping[str, Any]], transfer_hours: float, patience_s: float
) -> list[WaveDates]:
    """`waves` as in a plan; `transfer_hours` of the slowest node; `patience_s` until a node counts as silent. All
    durations are fleet time."""
    found, opens, latest = [], start, start
    for wave in waves:
        busy = wave["nodes"] > 0
        transferred = opens + (fleet_time(transfer_hours * 3600) if busy else timedelta())
        gate = transferred + fleet_time(wave["soak_s"])
        # A node may begin at the end of its patience, and takes its time then.
        latest += (transferred - opens) + (fleet_time(patience_s) if busy else timedelta()) + fleet_time(wave["soak_s"])
        found.append(
            WaveDates(
                index=wave["index"],
                percent=wave["percent"],
                nodes=wave["nodes"],
                soak_s=wave["soak_s"],
                opens=opens,
                transferred=transferred,
                gate=gate,
                latest=latest,
            )
        )
        opens = gate
    return found


def calendar(dates: Sequence[WaveDates], *, zone: str) -> WaveCalendar:
    """`dates` holds at least one wave. Days begin at the zone's own midnight, whatever its clocks do between."""
    first, last = dates[0].opens, dates[-1].gate
    span = max(last - first, timedelta(minutes=1))

    def x(at: datetime) -> float:
        return 100 * ((at - first) / span)

    bars = [Bar(one, x(one.opens), x(one.transferred), x(one.gate)) for one in dates]
    return WaveCalendar(
        zone, bars, [Tick(at, x(at), text) for at, text in _ticks(first, last, zone)], _change(first, last, zone)
    )


def _ticks(first: datetime, last: datetime, zone: str) -> list[tuple[datetime, str]]:
    here, span = ZoneInfo(zone), last - first
    if span > timedelta(days=3):
        every = -(-span.days // MAXIMUM_TICKS) or 1
        return [(at, f"{at.astimezone(here):%a %-d %b}") for at in zones.midnights(first, last, zone, every=every)][
            :MAXIMUM_TICKS
        ]
    step = next((step for step in _STEPS if span / step <= MAXIMUM_TICKS), _STEPS[-1])
    begin = first.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    at = begin + step * (-(-(first - begin) // step))
    found: list[tuple[datetime, str]] = []
    while at < last and len(found) < MAXIMUM_TICKS:
        local = at.astimezone(here)
        found.append((at, f"{local:%a %H:%M}"))
        at += step
    return found


def _change(first: datetime, last: datetime, zone: str) -> str:
    here = ZoneInfo(zone)
    before, after = first.astimezone(here), last.astimezone(here)
    if before.utcoffset() == after.utcoffset():
        return ""
    return f"The clocks change meanwhile, from {zones.zone_name(before)} to {zones.zone_name(after)}."
