from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from frontend.svg import LANE_ORDER, MemoryBar, confusion, lane
from frontend.templatetags.fleet_format import format_bytes, format_duration


@given(st.dictionaries(st.sampled_from(LANE_ORDER), st.integers(0, 10_000), min_size=1))
def test_a_lane_is_always_full_and_shows_even_one_node_of_ten_thousand(counts: dict[str, int]) -> None:
    segments = lane(counts)

    assert {one.state: one.count for one in segments} == {state: count for state, count in counts.items() if count}
    if segments:
        assert sum(one.width for one in segments) == pytest.approx(100)
        assert min(one.width for one in segments) > 0.8
        assert segments[0].x == 0


def test_a_memory_bar_puts_the_line_at_70_percent_of_what_is_left() -> None:
    bar = MemoryBar(reserved=40, arena=50, limit=61, sram=128)

    assert bar.limit_x == pytest.approx(100 * 101 / 128)
    assert bar.fits
    assert bar.free == 38
    assert bar.reserved_width + bar.arena_width + bar.free_width == pytest.approx(100)


def test_an_arena_larger_than_the_sram_stays_inside_the_picture() -> None:
    bar = MemoryBar(reserved=40, arena=500, limit=61, sram=128)

    assert not bar.fits
    assert bar.free_x == pytest.approx(100)
    assert bar.free == 0


def test_confusion_shows_recall_and_the_change_against_the_baseline() -> None:
    rows = confusion([[8, 2], [0, 0]], ["rest", "press"], before=[[9, 1], [0, 0]])

    assert rows[0].recall == pytest.approx(0.8)
    assert [cell.change for cell in rows[0].cells] == [-1, 1]
    assert rows[1].recall is None


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0 B"), (1023, "1023 B"), (99_240, "96.9 KiB"), (5 * 1024**2, "5.0 MiB"), (None, "unknown")]
)
def test_sizes_show_their_unit(value: int | None, text: str) -> None:
    assert format_bytes(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0 s"), (59, "59 s"), (60, "1 min"), (7500, "2 h 5 min"), (7200, "2 h"), (270_000, "3 d 3 h")],
)
def test_durations_show_their_two_largest_units(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text
