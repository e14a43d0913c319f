from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from updates.pipeline.statistics import (
    area_under_curve,
    calibration_error,
    kl_divergence,
    mcnemar,
    probabilities,
    threshold_at,
    wilson,
)


def test_wilson_gives_the_published_interval() -> None:
    # 81 of 263: 0.2553 to 0.3662 (R. G. Newcombe, Statistics in Medicine 17, 1998, table I).
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)


@pytest.mark.parametrize(
    ("lost", "gained", "p"), [(0, 0, 1.0), (1, 0, 1.0), (6, 0, 0.03125), (10, 2, 0.0385742), (5, 5, 1.0)]
)
def test_mcnemar_is_the_exact_binomial(lost: int, gained: int, p: float) -> None:
    assert mcnemar(lost, gained) == pytest.approx(p, rel=1e-4)


def test_mcnemar_of_thousands_is_no_underflow() -> None:
    assert 0.9 < mcnemar(5000, 5000) <= 1
    assert mcnemar(5000, 4000) < 1e-20


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_symmetric_and_a_probability(lost: int, gained: int) -> None:
    assert mcnemar(lost, gained) == mcnemar(gained, lost)
    assert 0 <= mcnemar(lost, gained) <= 1


def test_scores_that_are_distributions_stay_and_others_become_ones() -> None:
    softmax = np.array([[0.25, 0.75]])
    assert np.allclose(probabilities(softmax), softmax)
    assert np.allclose(probabilities(np.array([[0.0, np.log(3)]])), softmax)


def test_kl_is_zero_for_equals_and_finite_where_a_class_vanishes() -> None:
    even, sure = np.array([[0.5, 0.5]]), np.array([[1.0, 0.0]])
    assert kl_divergence(even, even) == 0
    assert 0.5 < kl_divergence(even, sure) < 5


def test_a_network_that_is_sure_and_wrong_half_the_time_is_half_off() -> None:
    sure = np.array([[1.0, 0.0]] * 10)
    assert calibration_error(sure, np.array([0] * 5 + [1] * 5)) == pytest.approx(0.5)
    assert calibration_error(sure, np.zeros(10, np.int64)) == pytest.approx(0)


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=30))
def test_the_area_counts_pairs(pairs: list[tuple[int, bool]]) -> None:
    scores, anomalous = np.array([score for score, _ in pairs], float), np.array([odd for _, odd in pairs])
    if anomalous.all() or not anomalous.any():
        with pytest.raises(ValueError, match="normal and anomalous"):
            area_under_curve(scores, anomalous)
        return
    higher = scores[anomalous][:, None] > scores[~anomalous][None]
    equal = scores[anomalous][:, None] == scores[~anomalous][None]
    assert area_under_curve(scores, anomalous) == pytest.approx((higher + 0.5 * equal).mean())


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=50), st.floats(0, 1, exclude_max=True))
def test_no_more_normal_samples_than_allowed_exceed_the_threshold(scores: list[float], rate: float) -> None:
    values = np.array(scores)
    assert (values > threshold_at(values, rate)).mean() <= rate
