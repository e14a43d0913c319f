from __future__ import annotations

from typing import Any

import pytest

from updates.campaigns.plan_warnings import plan_warnings


def plan(*nodes: int) -> dict[str, Any]:
    return {"waves": [{"index": index, "nodes": count} for index, count in enumerate(nodes)]}


@pytest.mark.parametrize("nodes", [(20, 80), (0, 20), (0, 0), ()])
def test_waves_that_the_gate_can_judge_warn_of_nothing(nodes: tuple[int, ...]) -> None:
    assert plan_warnings(plan(*nodes), {"minimum_sample": 20}) == []


def test_a_first_wave_smaller_than_the_sample_is_said_to_hold() -> None:
    [sentence] = plan_warnings(plan(19, 81), {"minimum_sample": 20})

    assert "hold after wave 1: wave 1 reaches 19 nodes so far, and the gate needs 20" in sentence


def test_the_gate_counts_all_waves_so_far_and_the_default_sample_applies() -> None:
    [sentence] = plan_warnings(plan(5, 10, 10), {})

    assert "hold after waves 1 to 2" in sentence
