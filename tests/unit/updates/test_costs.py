from __future__ import annotations

from typing import Any

import pytest

from devices.links.base import Estimate
from updates.campaigns.costs import LinkCosts, warnings


def test_costs_are_summed_over_nodes_and_the_longest_transfer_is_kept() -> None:
    costs = LinkCosts()
    costs.add(link="nbiot", nodes=3, size=100, full=1000, estimate=Estimate(10, 2.0, 0.5, None))
    costs.add(link="nbiot", nodes=1, size=1000, full=1000, estimate=Estimate(40, 8.0, 0.1, None))
    costs.add(link="lorawan", nodes=2, size=50, full=1000, estimate=Estimate(5, 1.0, 9.0, None))

    assert costs.as_json() == [
        {"link": "lorawan", "nodes": 2, "bytes": 100, "bytes_full": 2000, "frames": 10, "airtime_s": 2.0, "hours": 9.0},
        {"link": "nbiot", "nodes": 4, "bytes": 1300, "bytes_full": 4000, "frames": 70, "airtime_s": 14.0, "hours": 0.5},
    ]


def plan(*nodes: int) -> dict[str, Any]:
    return {"waves": [{"index": index, "nodes": count} for index, count in enumerate(nodes)]}


@pytest.mark.parametrize("nodes", [(20, 80), (0, 20), (0, 0), ()])
def test_waves_that_the_gate_can_judge_warn_of_nothing(nodes: tuple[int, ...]) -> None:
    assert warnings(plan(*nodes), {"minimum_sample": 20}) == []


def test_a_first_wave_smaller_than_the_sample_is_said_to_hold() -> None:
    [sentence] = warnings(plan(19, 81), {"minimum_sample": 20})

    assert "hold after wave 1: wave 1 reaches 19 nodes so far, and the gate needs 20" in sentence


def test_the_gate_counts_all_waves_so_far_and_the_default_sample_applies() -> None:
    [sentence] = warnings(plan(5, 10, 10), {})

    assert "hold after waves 1 to 2" in sentence
