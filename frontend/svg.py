"""Geometry of the pictures. Templates draw it, so every text in a picture is escaped like any other.

Horizontal places and widths are percent of the picture (0 to 100).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from frontend.templatetags.fleet_format import Look, look

# Left to right as a node goes through them, then the ways in which it can end otherwise.
LANE_ORDER = (
    "confirmed",
    "trial",
    "staged",
    "transferring",
    "offered",
    "planned",
    "reverted",
    "failed",
    "rejected",
    "silent",
    "skipped",
    "cancelled",
)
# Moving states share one colour; a stronger tint is nearer to the end.
TINTS = {"offered": "b1", "transferring": "b2", "staged": "b3", "trial": "b4", "silent": "hatched"}
SLIVER_PERCENT = 1.0
LABEL_PERCENT = 16.0


@dataclass(frozen=True)
class Segment:
    state: str
    look: Look
    count: int
    x: float
    width: float
    fill: str

    @property
    def labelled_inside(self) -> bool:
        return self.width >= LABEL_PERCENT


def lane(counts: Mapping[str, int]) -> list[Segment]:
    """One lane of 100 %: counts by state, in a fixed order. Slivers are widened to 1 % so that one node can be seen."""
    shown = [(state, counts[state]) for state in LANE_ORDER if counts.get(state)]
    total = sum(count for _, count in shown)
    raw = [max(SLIVER_PERCENT, 100 * count / total) for _, count in shown]
    scale = 100 / sum(raw) if raw else 1
    segments, x = [], 0.0
    for (state, count), width in zip(shown, raw, strict=True):
        segments.append(Segment(state, look("node", state), count, x, width * scale, TINTS.get(state, "tint")))
        x += width * scale
    return segments


@dataclass(frozen=True)
class MemoryBar:
    """SRAM from 0 to `sram` bytes: reserved by the RTOS, then the arena, then free. Places in percent of the SRAM."""

    reserved: int
    arena: int
    limit: int
    sram: int

    def _percent(self, value: int) -> float:
        return min(100.0, 100 * value / self.sram)

    @property
    def reserved_width(self) -> float:
        return self._percent(self.reserved)

    @property
    def arena_width(self) -> float:
        return min(self._percent(self.arena), 100 - self.reserved_width)

    @property
    def arena_label_x(self) -> float:
        return self.reserved_width + 1.5

    @property
    def free_x(self) -> float:
        return self.reserved_width + self.arena_width

    @property
    def free_width(self) -> float:
        return max(0.0, 100 - self.free_x)

    @property
    def limit_x(self) -> float:
        return self._percent(self.reserved + self.limit)

    @property
    def free(self) -> int:
        return max(0, self.sram - self.reserved - self.arena)

    @property
    def fits(self) -> bool:
        return self.arena <= self.limit

    @property
    def share_of_left(self) -> float:
        return self.arena / (self.sram - self.reserved)


@dataclass(frozen=True)
class Interval:
    """A value with its interval on an axis from 0 to `end`, and the limit as a dashed line. All fractions."""

    low: float
    high: float
    value: float
    limit: float

    @property
    def end(self) -> float:
        return max(self.high, self.limit, 0.001) * 1.25

    def _percent(self, value: float) -> float:
        return min(100.0, max(0.0, 100 * value / self.end))

    @property
    def low_x(self) -> float:
        return self._percent(self.low)

    @property
    def high_x(self) -> float:
        return self._percent(self.high)

    @property
    def value_x(self) -> float:
        return self._percent(self.value)

    @property
    def limit_x(self) -> float:
        return self._percent(self.limit)


@dataclass(frozen=True)
class ConfusionCell:
    count: int
    shade: str
    change: int | None


@dataclass(frozen=True)
class ConfusionRow:
    name: str
    cells: list[ConfusionCell]
    recall: float | None


def confusion(
    matrix: Sequence[Sequence[int]], names: Sequence[str], before: Sequence[Sequence[int]] | None = None
) -> list[ConfusionRow]:
    """Rows of true classes by columns of decisions; shaded by the share of the row; the change is against `before`."""
    rows = []
    for index, counts in enumerate(matrix):
        total = sum(counts)
        rows.append(
            ConfusionRow(
                names[index],
                [
                    ConfusionCell(
                        count, _shade(count, total), None if before is None else count - before[index][column]
                    )
                    for column, count in enumerate(counts)
                ],
                counts[index] / total if total else None,
            )
        )
    return rows


def _shade(count: int, total: int) -> str:
    share = count / total if total else 0
    return "h5" if share >= 0.5 else "h2" if share >= 0.02 else "h1"


def outline_points(outline: Sequence[int]) -> str:
    """Points of a polyline in 128 by 24 for values from 0 to 100; empty for less than two."""
    if len(outline) < 2:
        return ""
    return " ".join(f"{128 * at / (len(outline) - 1):.1f},{23 - 0.22 * value:.1f}" for at, value in enumerate(outline))
