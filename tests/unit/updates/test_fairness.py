"""Campaigns take turns at free places: the higher priority first, but nobody waits for ever."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from updates.campaigns.fairness import AGING_STEP_S, PRIORITY_HIGHEST, Turn, in_turn


def test_the_higher_priority_goes_first_and_the_older_campaign_among_equals() -> None:
    assert in_turn([Turn(1, 50), Turn(2, 90), Turn(3, 50)]) == [2, 1, 3]


def test_who_waits_long_enough_goes_before_every_priority() -> None:
    waited = (PRIORITY_HIGHEST + 1) * AGING_STEP_S
    assert in_turn([Turn(1, PRIORITY_HIGHEST), Turn(2, 0, waited)]) == [2, 1]


@settings(max_examples=100, deadline=None)
@given(
    priorities=st.lists(st.integers(0, PRIORITY_HIGHEST), min_size=1, max_size=8),
    every_s=st.floats(600, 6 * 3600),
)
def test_with_one_place_at_a_time_every_campaign_gets_it_again_and_again(priorities: list[int], every_s: float) -> None:
    since = dict.fromkeys(range(len(priorities)), 0.0)
    longest = (PRIORITY_HIGHEST + 1) * AGING_STEP_S + len(priorities) * (every_s + AGING_STEP_S)
    for round_number in range(1, int(3 * longest / every_s) + 1):
        at = round_number * every_s
        turns = [Turn(one, priority, at - since[one]) for one, priority in enumerate(priorities)]
        since[in_turn(turns)[0]] = at
        assert max(at - last for last in since.values()) <= longest
