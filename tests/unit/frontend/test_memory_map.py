from __future__ import annotations

from frontend.memory_map import HEIGHT, WIDTH, memory_map

PLAN = {
    "placements": [
        {"name": "tensor 0", "size": 300, "first": 0, "last": 1, "offset": 0},
        {"name": "tensor 1", "size": 700, "first": 1, "last": 2, "offset": 300},
        {"name": "scratch of CONV_2D 1", "size": 100, "first": 1, "last": 1, "offset": 1000},
    ],
    "operators": ["CONV_2D", "SOFTMAX"],
    "head_bytes": 1100,
    "tail_bytes": 400,
    "peak_step": 1,
}


def test_each_buffer_stands_at_its_place_from_its_first_to_its_last_step() -> None:
    drawn = memory_map(PLAN, [("a", 2000)])
    source, result, scratch, kept = drawn.rectangles

    assert "the input: 300 B from 0, steps 0 to 1" in source.title
    assert "output of CONV_2D, step 1: 700 B from 300" in result.title
    assert result.x > source.x
    assert result.y + result.height <= source.y + 0.2  # on top of it, not across it
    assert scratch.width < result.width
    assert kept.width > 2 * scratch.width
    assert all(one.x >= 0 and one.x + one.width <= WIDTH and 0 <= one.y <= HEIGHT for one in drawn.rectangles)


def test_the_limit_is_a_line_above_what_fits_and_below_the_top_of_what_does_not() -> None:
    top = min(one.y for one in memory_map(PLAN, [("a", 2000)]).rectangles)
    assert memory_map(PLAN, [("a", 2000)]).limits[0].y < top
    assert memory_map(PLAN, [("a", 1200)]).limits[0].y > min(
        one.y for one in memory_map(PLAN, [("a", 1200)]).rectangles
    )


def test_a_limit_far_above_is_told_in_words() -> None:
    drawn = memory_map(PLAN, [("near", 2000), ("far", 100_000)])

    assert [line.label for line in drawn.limits] == ["near: 2,000 B"]
    assert drawn.beyond == ("far: 100,000 B",)


def test_the_peak_is_named_by_its_operator() -> None:
    assert memory_map(PLAN, []).peak_operator == "CONV_2D"
