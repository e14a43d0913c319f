from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from updates.pipeline.guard import bounds, out_of_bounds, statistics, threshold


def windows(n: int = 400, *, mean: float = 0, deviation: float = 30) -> np.ndarray:
    return np.clip(np.random.default_rng(3).normal(mean, deviation, (n, 4, 50)), -128, 127).astype(np.int8)


def test_statistics_are_in_per_mille_of_the_range() -> None:
    window = np.array([[127, -128, 64, 64]], np.int8)
    # Sum 127: mean 31.75 of 128 is 248 per mille; around 32: 95 + 160 + 32 + 32 = 319 of 512; two of four saturated.
    assert statistics(window).tolist() == [[248, 623, 500]]


def test_windows_like_those_of_the_evaluation_are_within_bounds() -> None:
    limits = bounds(windows())
    assert out_of_bounds(windows(), limits).mean() <= 0.01


@pytest.mark.parametrize(
    "strange", [windows(mean=60), windows(deviation=4), windows(deviation=90), np.full((3, 4, 50), -128, np.int8)]
)
def test_windows_unlike_them_are_out_of_bounds(strange: np.ndarray) -> None:
    assert out_of_bounds(strange, bounds(windows())).all()


def test_the_threshold_is_the_lowest_that_keeps_the_error_small_enough() -> None:
    confidence = np.concatenate([np.full(500, 0.95), np.full(100, 0.6)])
    right = np.concatenate([np.full(499, True), [False], np.full(50, True), np.full(50, False)])
    found = threshold(confidence, right, maximum_error=0.02)
    assert found is not None
    assert (found.per_mille, found.fallback_rate) == (601, pytest.approx(100 / 600))
    assert found.error_rate == pytest.approx(1 / 500)


def test_one_more_error_among_the_accepted_and_no_threshold_is_good_enough() -> None:
    confidence, right = np.full(200, 0.9), np.full(200, True)
    assert threshold(confidence, right, maximum_error=0.0189) is not None
    right[0] = False
    assert threshold(confidence, right, maximum_error=0.0189) is None


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=60), st.floats(0, 1))
def test_no_more_windows_fall_back_than_allowed(samples: list[tuple[float, bool]], allowed: float) -> None:
    confidence, right = np.array([one for one, _ in samples]), np.array([good for _, good in samples])
    found = threshold(confidence, right, maximum_fallback=allowed)
    assert found is not None and found.fallback_rate <= allowed
    assert found.fallback_rate == pytest.approx((np.floor(confidence * 1000) < found.per_mille).mean())


def test_exactly_one_wish_is_taken() -> None:
    with pytest.raises(ValueError, match="either"):
        threshold(np.ones(1), np.ones(1, bool))
