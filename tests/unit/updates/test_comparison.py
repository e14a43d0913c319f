from __future__ import annotations

import pytest

from updates.comparison import difference_interval


def test_the_interval_of_a_difference_is_newcombes() -> None:
    # Newcombe 1998, table II, example (a): 56/70 less 48/80 lies within 0.0524 and 0.3339.
    low, high = difference_interval(48, 80, 56, 70)

    assert (low, high) == (pytest.approx(0.0524, abs=1e-4), pytest.approx(0.3339, abs=1e-4))


def test_equal_shares_leave_zero_inside() -> None:
    low, high = difference_interval(90, 100, 90, 100)

    assert low < 0 < high
    assert low == pytest.approx(-high)
