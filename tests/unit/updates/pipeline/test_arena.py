from __future__ import annotations

import os
import re
import tempfile
from functools import cache

import pytest

from tests.unit.updates.pipeline.models import convolution_model, request
from updates.pipeline.arena import Placement, place, plan
from updates.pipeline.build import build
from updates.pipeline.judge import interpreter

pytestmark = pytest.mark.usefixtures("stages_run_once")


@cache
def image() -> tuple[bytes, int]:
    """An image and the smallest arena in which TFLM ran it here."""
    built = build(request(convolution_model()), lambda stage, done: None).images[0]
    return built.data, built.arena_bytes


def allocated(data: bytes, what: str) -> int:
    """What TFLM itself says that it allocated; it says so on file descriptor 2 only."""
    with tempfile.TemporaryFile() as heard:
        if (pid := os.fork()) == 0:
            os.dup2(heard.fileno(), 1)
            os.dup2(heard.fileno(), 2)
            interpreter(data, 1 << 20).print_allocations()
            os._exit(0)
        os.waitpid(pid, 0)
        heard.seek(0)
        found = re.search(rf"Arena allocation {what} (\d+)", heard.read().decode())
    assert found is not None
    return int(found[1])


def test_the_planned_head_is_tflms_own_to_the_byte() -> None:
    data, _ = image()
    assert plan(data, kernel_library="reference").head_bytes == allocated(data, "head")


def test_a_32_bit_core_needs_less_than_this_machine() -> None:
    data, here = image()
    assert 0.5 * here < plan(data, kernel_library="reference").total_bytes < here


def test_cmsis_nn_borrows_columns_for_a_convolution_while_it_runs() -> None:
    data, _ = image()
    reference, cmsis = (plan(data, kernel_library=library) for library in ("reference", "cmsis-nn"))
    scratch = [one for one in cmsis.placements if one.name.startswith("scratch")]
    assert [(one.size, one.first == one.last) for one in scratch] == [(4 * 3 * 3 * 3 // 16 * 16 + 16, True)]
    assert cmsis.head_bytes >= reference.head_bytes


def test_buffers_that_live_at_the_same_time_never_overlap() -> None:
    data, _ = image()
    placements = plan(data, kernel_library="cmsis-nn").placements
    for index, one in enumerate(placements):
        for other in placements[index + 1 :]:
            together = one.first <= other.last and other.first <= one.last
            apart = one.offset + one.size <= other.offset or other.offset + other.size <= one.offset
            assert apart or not together


@pytest.mark.parametrize(
    ("sizes", "head"),
    [
        ([(64, 0, 1), (32, 1, 2), (64, 2, 3)], 96),  # the third takes the first one's place
        ([(16, 0, 3), (32, 0, 1), (32, 2, 3)], 48),
    ],
)
def test_the_planner_reuses_what_has_died(sizes: list[tuple[int, int, int]], head: int) -> None:
    placed = place([Placement(str(index), *one) for index, one in enumerate(sizes)])
    assert max(one.offset + one.size for one in placed) == head
