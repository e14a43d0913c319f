"""A node's wave depends on the campaign's salt and the node alone, and never gets later when a percentage grows."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from updates.campaigns.waves import assign

SALTS = st.text(max_size=8)
# Node ids with their strata.
FLEETS = st.dictionaries(st.integers(1, 10**9), st.sampled_from("abc"), max_size=80).map(lambda nodes: [*nodes.items()])
PERCENTS = st.sets(st.integers(1, 99), max_size=4).map(lambda chosen: [*sorted(chosen), 100])


@given(SALTS, FLEETS, PERCENTS)
def test_every_node_is_in_one_wave(salt: str, nodes: list[tuple[int, str]], percents: list[int]) -> None:
    waves = assign(salt=salt, nodes=nodes, percents=percents)
    assert waves.keys() == {node for node, _ in nodes}
    assert set(waves.values()) <= set(range(len(percents)))


@given(SALTS, FLEETS, PERCENTS, st.data())
def test_a_grown_percentage_moves_no_node_to_a_later_wave(
    salt: str, nodes: list[tuple[int, str]], percents: list[int], data: st.DataObject
) -> None:
    grown = [*percents]
    for index in reversed(range(len(percents) - 1)):
        grown[index] = data.draw(st.integers(percents[index], grown[index + 1] - 1))
    before, after = (assign(salt=salt, nodes=nodes, percents=steps) for steps in (percents, grown))
    assert [node for node in before if after[node] > before[node]] == []


@given(SALTS, FLEETS, PERCENTS)
def test_the_first_wave_has_one_of_each_stratum(salt: str, nodes: list[tuple[int, str]], percents: list[int]) -> None:
    waves = assign(salt=salt, nodes=nodes, percents=percents)
    assert {stratum for node, stratum in nodes if waves[node] == 0} == {stratum for _, stratum in nodes}


@given(SALTS, FLEETS, PERCENTS, st.randoms())
def test_the_same_salt_gives_the_same_waves_in_any_order(
    salt: str, nodes: list[tuple[int, str]], percents: list[int], chance: random.Random
) -> None:
    shuffled = [*nodes]
    chance.shuffle(shuffled)
    assert assign(salt=salt, nodes=shuffled, percents=percents) == assign(salt=salt, nodes=nodes, percents=percents)


def test_another_salt_chooses_other_canaries() -> None:
    nodes = [(node, "a") for node in range(1000)]
    first, second = (assign(salt=salt, nodes=nodes, percents=[5, 100]) for salt in ("one", "two"))
    assert {n for n, wave in first.items() if wave == 0} != {n for n, wave in second.items() if wave == 0}


def test_each_stratum_is_cut_at_the_percents() -> None:
    nodes = [(node, "a") for node in range(200)] + [(node, "b") for node in range(200, 240)]
    waves = assign(salt="s", nodes=nodes, percents=[5, 25, 100])
    counts = Counter((stratum, waves[node]) for node, stratum in nodes)
    assert counts == {("a", 0): 10, ("a", 1): 40, ("a", 2): 150, ("b", 0): 2, ("b", 1): 8, ("b", 2): 30}


@pytest.mark.parametrize("percents", [[], [5], [0, 100], [-5, 100], [50, 25, 100], [50, 50, 100], [100, 100], [5, 101]])
def test_percents_that_do_not_rise_to_100_are_refused(percents: list[float]) -> None:
    with pytest.raises(ValueError, match="must rise from above 0 to exactly 100"):
        assign(salt="s", nodes=[(1, "a")], percents=percents)
