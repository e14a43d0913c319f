"""A gate halts on proof of failure, holds on too little, and says by which numbers."""

from __future__ import annotations

from typing import Any

import pytest

from updates.campaigns.gates import GatePolicy, decide, wilson

POLICY = GatePolicy(maximum_failure_percent=2, maximum_silent_percent=20, minimum_sample=20)


# 0 of 20 and 81 of 263 are in Newcombe, "Two-sided confidence intervals for the single proportion" (1998), method 3.
@pytest.mark.parametrize(
    ("hits", "total", "low", "high"),
    [(0, 20, 0.0, 16.11), (5, 100, 2.15, 11.18), (1, 2, 9.45, 90.55), (20, 20, 83.89, 100.0), (81, 263, 25.53, 36.62)],
)
def test_the_interval_is_wilsons(hits: int, total: int, low: float, high: float) -> None:
    bounds = [100 * bound for bound in wilson(hits, total)]
    assert bounds == pytest.approx([low, high], abs=0.006)


def test_nothing_seen_says_nothing() -> None:
    assert wilson(0, 0) == (0.0, 1.0)


def test_failures_halt_once_the_lower_bound_is_above_the_limit() -> None:
    verdict = decide(tallies={"failed": 5, "confirmed": 95}, policy=POLICY, ended=False)
    assert verdict.decision == "halt"
    assert (verdict.failure_low_percent, verdict.failure_high_percent) == (2.15, 11.18)
    assert "5 of 100" in verdict.reason


def test_a_share_above_the_limit_with_its_lower_bound_below_does_not_halt() -> None:
    verdict = decide(tallies={"failed": 4, "confirmed": 96}, policy=POLICY, ended=True)
    assert 4 > POLICY.maximum_failure_percent > verdict.failure_low_percent
    assert verdict.decision == "pass"


@pytest.mark.parametrize(("failed", "decision"), [(19, "pass"), (20, "halt")])
def test_no_halt_below_the_minimum_sample(failed: int, decision: str) -> None:
    assert decide(tallies={"failed": failed}, policy=POLICY, ended=False).decision == decision


@pytest.mark.parametrize("state", ["failed", "rejected", "reverted"])
def test_each_way_to_end_badly_on_the_node_is_a_failure(state: str) -> None:
    verdict = decide(tallies={state: 20, "confirmed": 20}, policy=POLICY, ended=False)
    assert (verdict.decision, verdict.failures, verdict.completed) == ("halt", 20, 40)


@pytest.mark.parametrize(
    "state", ["planned", "offered", "transferring", "staged", "trial", "silent", "skipped", "cancelled"]
)
def test_what_did_not_end_on_the_node_does_not_dilute_failures(state: str) -> None:
    verdict = decide(tallies={"failed": 5, "confirmed": 15, state: 10_000}, policy=POLICY, ended=False)
    assert (verdict.decision, verdict.completed) == ("halt", 20)


@pytest.mark.parametrize(("ended", "decision"), [(False, "pass"), (True, "hold")])
def test_a_small_sample_holds_only_once_the_wave_has_ended(ended: bool, decision: str) -> None:
    assert decide(tallies={"confirmed": 19, "silent": 1}, policy=POLICY, ended=ended).decision == decision


@pytest.mark.parametrize(("ended", "decision"), [(False, "pass"), (True, "hold")])
def test_silence_above_the_limit_holds_once_the_wave_has_ended(ended: bool, decision: str) -> None:
    assert decide(tallies={"confirmed": 79, "silent": 21}, policy=POLICY, ended=ended).decision == decision


def test_silence_at_the_limit_passes() -> None:
    assert decide(tallies={"confirmed": 80, "silent": 20}, policy=POLICY, ended=True).decision == "pass"


def test_failure_weighs_more_than_silence() -> None:
    assert decide(tallies={"failed": 20, "silent": 80}, policy=POLICY, ended=True).decision == "halt"


def test_a_verdict_keeps_its_policy() -> None:
    record = decide(tallies={"confirmed": 20}, policy=POLICY, ended=True).as_json()
    assert record["policy"] == {"maximum_failure_percent": 2, "maximum_silent_percent": 20, "minimum_sample": 20}


@pytest.mark.parametrize(
    ("values", "parts"),
    [
        ({"minimum": 3}, ["gate.minimum ", "minimum_sample"]),
        ({"minimum_sample": "many"}, ["gate.minimum_sample", "'many'", "number"]),
        ({"minimum_sample": True}, ["gate.minimum_sample", "True"]),
        ({"minimum_sample": 0}, ["gate.minimum_sample", "0", "from 1"]),
        ({"minimum_sample": 2.5}, ["gate.minimum_sample", "2.5", "whole"]),
        ({"maximum_failure_percent": 101}, ["gate.maximum_failure_percent", "101", "0 to 100"]),
        ({"maximum_silent_percent": -1}, ["gate.maximum_silent_percent", "-1", "0 to 100"]),
        ({"maximum_silent_percent": float("nan")}, ["gate.maximum_silent_percent", "nan", "finite"]),
        ({"minimum_sample": float("inf")}, ["gate.minimum_sample", "inf", "finite"]),
    ],
)
def test_a_bad_policy_is_refused_by_field_and_value(values: dict[str, Any], parts: list[str]) -> None:
    with pytest.raises(ValueError) as refusal:
        GatePolicy.read(values)
    assert [part for part in parts if part not in str(refusal.value)] == []


def test_what_a_policy_leaves_out_has_its_default() -> None:
    assert GatePolicy.read({"minimum_sample": 5}) == GatePolicy(minimum_sample=5)
