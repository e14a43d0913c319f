"""A layer's integers between the float weights and the deployed ones."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from updates.pipeline.rate_rounding import Fed, towards


def layer(seed: int, *, outputs: int = 6, inputs: int = 12) -> tuple[np.ndarray, np.ndarray, np.ndarray, Fed]:
    """(wanted, deployed, samples, what they are): inputs that depend on each other, as a network's do."""
    random = np.random.default_rng(seed)
    deployed = random.integers(-90, 90, (outputs, inputs)).astype(float)
    wanted = deployed + random.normal(0, 2, (outputs, inputs))
    samples = random.normal(0, 1, (400, 5)) @ random.normal(0, 1, (5, inputs)) + random.normal(0, 0.2, (400, inputs))
    moments = (samples.T @ samples / len(samples))[None]
    return wanted, deployed, samples, Fed(moments, np.zeros_like(moments))


def error(wanted: np.ndarray, found: np.ndarray, samples: np.ndarray) -> float:
    return float(np.mean((samples @ (wanted - found).T) ** 2))


def free(outputs: int) -> np.ndarray:
    return np.zeros(outputs)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000))
def test_free_bits_beat_rounding_to_nearest(seed):
    wanted, deployed, samples, fed = layer(seed)

    found = towards(wanted, deployed, fed, free(6), limit=127, bias=False)

    assert error(wanted, found, samples) < error(wanted, np.rint(wanted), samples)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000))
def test_bits_beyond_price_leave_everything_as_deployed(seed):
    wanted, deployed, _, fed = layer(seed)

    assert np.array_equal(towards(wanted, deployed, fed, np.full(6, 1e12), limit=127, bias=False), deployed)


@pytest.mark.parametrize("price", [1.0, 4.0, 16.0])
def test_the_error_is_less_than_by_changing_as_many_weights_that_moved_most(price):
    shares = []
    for seed in range(20):
        wanted, deployed, samples, fed = layer(seed)
        found = towards(wanted, deployed, fed, np.full(6, price), limit=127, bias=False)
        moves = np.abs(wanted - deployed)
        changed = int((found != deployed).sum())
        kept = np.sort(moves, axis=None)[-changed] if changed else np.inf
        largest = np.where(moves >= kept, np.rint(wanted), deployed)
        shares.append(error(wanted, found, samples) / error(wanted, largest, samples))

    assert np.exp(np.mean(np.log(shares))) < 0.9, shares


def test_weights_stay_within_their_type():
    wanted, deployed, _, fed = layer(3)

    found = towards(wanted * 3, deployed.clip(-7, 7), fed, free(6), limit=7, bias=False)

    assert np.abs(found).max() == 7


def test_a_bias_takes_what_the_weights_lost_on_average():
    wanted, deployed, samples, _ = layer(5)
    samples = np.column_stack([samples + 2, np.full(len(samples), 0.01)])
    wanted, deployed = np.column_stack([wanted, np.zeros(6)]), np.column_stack([deployed, np.zeros(6)])
    moments = (samples.T @ samples / len(samples))[None]

    found = towards(wanted, deployed, Fed(moments, np.zeros_like(moments)), np.full(6, 0.01), limit=127, bias=True)

    shift = np.abs((samples @ (wanted - found).T).mean(0))
    assert (found[:, -1] != 0).any()
    assert shift.max() < 0.05


def test_weights_make_good_what_earlier_layers_lost():
    wanted, deployed, samples, _ = layer(7)
    damaged = samples * 0.8
    taken = (damaged.T @ damaged / len(samples))[None]
    lost = ((samples - damaged).T @ damaged / len(samples))[None]

    knowing = towards(wanted, deployed, Fed(taken, lost), free(6), limit=200, bias=False)
    blind = towards(wanted, deployed, Fed(taken, np.zeros_like(lost)), free(6), limit=200, bias=False)

    def missed(found: np.ndarray) -> float:
        return float(np.mean((samples @ wanted.T - damaged @ found.T) ** 2))

    assert missed(knowing) < 0.1 * missed(blind)


def test_channels_with_inputs_of_their_own_are_rounded_each_by_its_own():
    random = np.random.default_rng(2)
    wanted, deployed = random.normal(0, 20, (3, 9)), np.zeros((3, 9))
    samples = random.normal(0, 1, (3, 200, 9)) * np.array([1, 10, 100])[:, None, None]
    moments = samples.transpose(0, 2, 1) @ samples / 200

    def rounded(rows: slice, price: float) -> np.ndarray:
        fed = Fed(moments[rows], 0 * moments[rows])
        return towards(wanted[rows], deployed[rows], fed, np.full(len(wanted[rows]), price), limit=127, bias=False)

    dear = rounded(slice(0, 3), 50.0)
    assert (dear[0] == 0).sum() > (dear[2] == 0).sum()
    assert np.array_equal(rounded(slice(0, 3), 0.0), np.concatenate([rounded(slice(i, i + 1), 0.0) for i in range(3)]))


def test_from_few_samples_less_is_learnt_from_chance():
    ratios = []
    for seed in range(10):
        random = np.random.default_rng(seed)
        wanted = random.normal(0, 20, (6, 40))
        few, others = random.normal(0, 1, (30, 40)), random.normal(0, 1, (500, 40))
        moments = (few.T @ few / len(few))[None]

        knowing, trusting = (
            towards(wanted, np.rint(wanted) + 3, Fed(moments, 0 * moments, rows), free(6) + 1, limit=127, bias=False)
            for rows in (len(few), np.inf)
        )
        ratios.append(error(wanted, knowing, others) / error(wanted, trusting, others))

    assert np.exp(np.mean(np.log(ratios))) < 0.8, ratios
