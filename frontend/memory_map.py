"""The arena drawn: each buffer from its first to its last step, at its place in the arena; the peak; the limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

WIDTH, HEIGHT = 720, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 8, 18, 34
# A limit further up than this times the arena would press the picture flat: it is told in words then.
_TALLEST = 2.5


@dataclass(frozen=True)
class Rectangle:
    """In units of the picture; `title` says what it is and how many bytes."""

    x: float
    y: float
    width: float
    height: float
    css: str
    title: str


@dataclass(frozen=True)
class Line:
    """A dashed line across at `y`, and what it says."""

    y: float
    label: str


@dataclass(frozen=True)
class MemoryMap:
    rectangles: tuple[Rectangle, ...]
    limits: tuple[Line, ...]
    beyond: tuple[str, ...]
    ticks: tuple[Line, ...]
    peak_x: float
    peak_width: float
    peak_operator: str
    steps: int
    total_bytes: int
    head_bytes: int
    tail_bytes: int

    width, height, left, right, bottom = WIDTH, HEIGHT, _LEFT, WIDTH - _RIGHT, HEIGHT - _BOTTOM


def memory_map(plan: Mapping[str, Any], limits: Sequence[tuple[str, int]]) -> MemoryMap:
    """plan: an `updates.pipeline.types.ArenaPlan` as JSON. limits: (profile, bytes that its arena may take)."""
    head, tail = int(plan["head_bytes"]), int(plan["tail_bytes"])
    total, steps = head + tail, len(plan["operators"]) + 1
    drawn = sorted({(limit, name) for name, limit in limits if limit <= _TALLEST * total})
    top = 1.08 * max([total, *(limit for limit, _ in drawn)])
    across, up = (WIDTH - _LEFT - _RIGHT) / steps, (HEIGHT - _TOP - _BOTTOM) / top

    def y(value: float) -> float:
        return round(HEIGHT - _BOTTOM - value * up, 1)

    def box(first: int, last: int, low: float, high: float, css: str, title: str) -> Rectangle:
        width = max(1.0, (last - first + 1) * across - 1)
        return Rectangle(
            round(_LEFT + first * across, 1),
            y(high),
            round(width, 1),
            round(max(1.0, (high - low) * up), 1),
            css,
            title,
        )

    rectangles = [
        box(
            one["first"],
            one["last"],
            one["offset"],
            one["offset"] + one["size"],
            "n3" if "scratch" in one["name"] else "n5" if one["first"] <= plan["peak_step"] <= one["last"] else "n4",
            f"{_name(one, plan['operators'])}: {one['size']:,} B from {one['offset']:,}, steps {one['first']} to {one['last']}",
        )
        for one in plan["placements"]
    ]
    rectangles.append(box(0, steps - 1, head, total, "n2", f"kept by kernels and interpreter: {tail:,} B"))
    peak = int(plan["peak_step"])
    return MemoryMap(
        rectangles=tuple(rectangles),
        limits=tuple(Line(y(limit), f"{name}: {limit:,} B") for limit, name in drawn),
        beyond=tuple(f"{name}: {limit:,} B" for name, limit in limits if limit > _TALLEST * total),
        ticks=tuple(Line(y(total * part / 2), f"{round(total * part / 2):,}") for part in range(3)),
        peak_x=round(_LEFT + peak * across, 1),
        peak_width=round(across, 1),
        peak_operator=plan["operators"][peak - 1] if peak else "the input",
        steps=steps,
        total_bytes=total,
        head_bytes=head,
        tail_bytes=tail,
    )


def _name(one: Mapping[str, Any], operators: Sequence[str]) -> str:
    """Images carry no names of tensors: what made it says more."""
    if "scratch" in one["name"]:
        return str(one["name"])
    return "the input" if one["first"] == 0 else f"output of {operators[one['first'] - 1]}, step {one['first']}"
