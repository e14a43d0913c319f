"""Geometry of the memory map: the arena's buffers over the steps of one inference. Templates draw it.

Horizontal places are percent of the picture, one step the same width as any other; vertical places are pixels, the
first byte of the arena at the bottom.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from devices.models import HardwareProfile
from frontend.pages import Verdict
from frontend.svg import MemoryBar
from frontend.templatetags.fleet_format import format_bytes
from updates.memory import MemoryUse, NoMemoryMap, memory_use
from updates.models import ModelImage
from updates.pipeline.arena import ArenaPlan, Placement
from updates.pipeline.evidence import BISECTED, ESTIMATED, REPORTED

# How the arena was measured, by the word that a fit carries.
EVIDENCE = {
    REPORTED: "what a node reported that it uses",
    BISECTED: "smallest arena in which the TFLM interpreter ran it, on x86-64",
    ESTIMATED: "planned for a 32-bit core, with the scratch of its kernel library",
}
TOP_PX, BOTTOM_PX = 26, 232
LABEL_PERCENT, LABEL_PX = 11.0, 20.0
MARKS, STEP_LABELS = 4, 6


@dataclass(frozen=True)
class Block:
    """One buffer: from its first to its last step, over the bytes that it takes."""

    placement: Placement
    x: float
    y: float
    width: float
    height: float
    at_peak: bool

    @property
    def labelled(self) -> bool:
        return self.width >= LABEL_PERCENT and self.height >= LABEL_PX

    @property
    def short_name(self) -> str:
        return self.placement.name.rsplit("/", 1)[-1][-24:]


@dataclass(frozen=True)
class Mark:
    """A number on an axis: `at` is pixels on the vertical and percent on the horizontal one."""

    at: float
    value: int


@dataclass(frozen=True)
class MemoryMap:
    """`limit_bytes`: what the profile allows. `needed_bytes`: what the verdict uses, which may be more than the plan."""

    plan: ArenaPlan
    limit_bytes: int
    needed_bytes: int

    @property
    def _scale_px(self) -> float:
        return (BOTTOM_PX - TOP_PX) / max(self.plan.total_bytes, self.limit_bytes, self.needed_bytes, 1)

    @property
    def _step_percent(self) -> float:
        return 100 / (len(self.plan.operators) + 1)

    def _y(self, value: float) -> float:
        return BOTTOM_PX - value * self._scale_px

    @property
    def blocks(self) -> list[Block]:
        """Largest first, so that small ones lie on top where a picture is too coarse to keep them apart."""
        ordered = sorted(self.plan.placements, key=lambda one: (-one.size, one.first))
        return [self._block(one) for one in ordered]

    @property
    def rows(self) -> list[Block]:
        """The same in the order in which they come to life, for the table."""
        return sorted(self.blocks, key=lambda one: (one.placement.first, one.placement.offset))

    def _block(self, one: Placement) -> Block:
        return Block(
            placement=one,
            x=one.first * self._step_percent,
            y=self._y(one.offset + one.size),
            width=(one.last - one.first + 1) * self._step_percent,
            height=one.size * self._scale_px,
            at_peak=one.first <= self.plan.peak_step <= one.last,
        )

    @property
    def tail(self) -> tuple[float, float]:
        """Top and height in pixels of what kernels and interpreter keep for ever."""
        return self._y(self.plan.total_bytes), self.plan.tail_bytes * self._scale_px

    @property
    def limit_y(self) -> float:
        return self._y(self.limit_bytes)

    @property
    def needed_y(self) -> float:
        return self._y(self.needed_bytes)

    @property
    def fits(self) -> bool:
        return self.needed_bytes <= self.limit_bytes

    @property
    def peak_x(self) -> float:
        return (self.plan.peak_step + 0.5) * self._step_percent

    @property
    def peak_operator(self) -> str:
        """Of the step at which most bytes are alive; the input alone before the first."""
        step = self.plan.peak_step
        return self.plan.operators[step - 1] if step else "the input"

    @property
    def peak_bytes(self) -> int:
        return sum(one.placement.size for one in self.blocks if one.at_peak)

    @property
    def heights(self) -> list[Mark]:
        """Round numbers of bytes on the vertical axis."""
        top = max(self.plan.total_bytes, self.limit_bytes, self.needed_bytes, 1)
        step = _round_step(top)
        return [Mark(self._y(value), value) for value in range(0, top + 1, step)]

    @property
    def steps(self) -> list[Mark]:
        return [
            Mark((step + 0.5) * self._step_percent, step) for step in _spread(len(self.plan.operators) + 1, STEP_LABELS)
        ]


def _round_step(top: int) -> int:
    """A power of two of bytes that makes at most MARKS + 1 lines."""
    step = 1
    while top / step > MARKS:
        step *= 2
    return step


def _spread(count: int, most: int) -> Sequence[int]:
    return range(0, count, max(1, -(-count // most)))


def memory_page(image: ModelImage, profile: HardwareProfile) -> dict[str, Any]:
    """What the page of one image on one profile shows; without a map where none can be planned."""
    context: dict[str, Any] = {"image": image, "version": image.version, "profile": profile}
    try:
        use = memory_use(image, profile)
    except NoMemoryMap as reason:
        return context | {"verdict": Verdict("is-none", "i-info", f"No memory map of {image}.", str(reason))}
    bar = MemoryBar(profile.reserved_sram_bytes, use.needed_bytes, profile.arena_limit_bytes, profile.sram_bytes)
    return context | {
        "map": MemoryMap(use.plan, profile.arena_limit_bytes, use.needed_bytes),
        "bar": bar,
        "evidence": [(EVIDENCE.get(word, word), size) for word, size in use.ladder.items()],
        "verdict": _verdict(use, bar),
    }


def _verdict(use: MemoryUse, bar: MemoryBar) -> Verdict:
    words = f"{format_bytes(use.needed_bytes)} of arena, {format_bytes(bar.limit)} are allowed"
    if bar.fits:
        return Verdict("is-fits", "s-confirmed", f"{use.image} fits the arena of {use.profile}: it needs {words}.")
    return Verdict(
        "is-nofit",
        "s-failed",
        f"{use.image} does not fit the arena of {use.profile}: it needs {words}.",
        "Make smaller what is alive at the peak; what lives at other times costs nothing.",
    )
