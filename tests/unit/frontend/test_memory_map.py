"""The memory map draws the arena plan to scale: places by bytes, widths by steps."""

from __future__ import annotations

import pytest

from frontend.memory_map import BOTTOM_PX, TOP_PX, MemoryMap
from updates.pipeline.arena import ArenaPlan, Placement

PLAN = ArenaPlan(
    placements=(
        Placement("input", 1024, 0, 1, 2048),
        Placement("CONV_2D 1", 2048, 1, 2, 0),
        Placement("FULLY_CONNECTED 2", 16, 2, 2, 2048),
    ),
    operators=("CONV_2D", "FULLY_CONNECTED"),
    head_bytes=3072,
    tail_bytes=1024,
    peak_step=1,
)


def test_a_block_spans_its_steps_and_its_bytes() -> None:
    drawn = MemoryMap(PLAN, limit_bytes=8192, needed_bytes=4096)
    pixel = (BOTTOM_PX - TOP_PX) / 8192

    convolution, given, _ = drawn.blocks

    assert (convolution.x, convolution.width) == pytest.approx((100 / 3, 200 / 3))
    assert (convolution.y, convolution.height) == pytest.approx((BOTTOM_PX - 2048 * pixel, 2048 * pixel))
    assert given.y + given.height == pytest.approx(BOTTOM_PX - 2048 * pixel)
    assert given.x == 0


def test_what_is_alive_at_the_peak_is_marked_and_summed() -> None:
    drawn = MemoryMap(PLAN, limit_bytes=8192, needed_bytes=4096)

    assert [block.placement.name for block in drawn.blocks if block.at_peak] == ["CONV_2D 1", "input"]
    assert drawn.peak_bytes == 3072
    assert drawn.peak_operator == "CONV_2D"
    assert drawn.peak_x == pytest.approx(50.0)


def test_what_is_kept_for_ever_lies_on_top_of_the_tensors() -> None:
    drawn = MemoryMap(PLAN, limit_bytes=4096, needed_bytes=4096)

    top, height = drawn.tail

    assert top == pytest.approx(TOP_PX)
    assert top + height == pytest.approx(BOTTOM_PX - 3072 * (BOTTOM_PX - TOP_PX) / 4096)


def test_the_picture_makes_room_for_whatever_is_largest() -> None:
    over = MemoryMap(PLAN, limit_bytes=2000, needed_bytes=5000)

    assert over.needed_y == TOP_PX
    assert over.limit_y == pytest.approx(BOTTOM_PX - 2000 * (BOTTOM_PX - TOP_PX) / 5000)
    assert not over.fits
    assert [mark.value for mark in over.heights] == [0, 2048, 4096]


def test_a_long_network_has_few_step_labels() -> None:
    long = ArenaPlan((), ("CONV_2D",) * 63, 0, 0, 0)

    marks = MemoryMap(long, 1, 1).steps

    assert [mark.value for mark in marks] == [0, 11, 22, 33, 44, 55]
