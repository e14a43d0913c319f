"""When a node should not trust its network: below a confidence, or on inputs unlike any that it was proved on.

The five bounds are of the int8 input tensor of one window, in per mille: its mean and its deviation (of 128), and the
share of values at either end of the range (docs/guard.md). All are integers, so that every node decides alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from updates.pipeline.statistics import probabilities, wilson

PER_MILLE = 1000
# A window is strange only outside what all but a few of the evaluation's windows showed, with room to spare.
_TAIL, _ROOM = 0.005, 0.25
MAXIMUM_ERROR, MAXIMUM_FALLBACK = 0.05, 0.10


@dataclass(frozen=True)
class Confidence:
    """What a threshold costs and gives, on the evaluation data. `per_mille` from 0: below it the node falls back."""

    per_mille: int
    fallback_rate: float
    error_rate: float
    error_interval: tuple[float, float]


@dataclass(frozen=True)
class Bounds:
    """Per mille. A window outside any of them counts as out of bounds."""

    mean_low: int
    mean_high: int
    deviation_low: int
    deviation_high: int
    saturated_high: int


@dataclass(frozen=True)
class Guard:
    """threshold: for classifiers alone, None where the evaluation data allow none."""

    bounds: Bounds
    threshold: Confidence | None = None


def propose(windows: npt.NDArray[Any], outputs: npt.NDArray[np.float32], labels: npt.NDArray[np.int64] | None) -> Guard:
    """windows: (n, ...) of the input tensor, int8 or int16 (of which the high byte counts). outputs: (n, classes), as the
    image gave them. labels: (n,) of a classifier, else None.

    The threshold is the lowest that accepts at most MAXIMUM_ERROR of wrong decisions, at the upper end of the 95 %
    interval; where none does, the highest that leaves at most MAXIMUM_FALLBACK of the windows to the fallback.
    """
    narrow = (windows >> 8 if windows.dtype.itemsize == 2 else windows).astype(np.int8)
    if labels is None:
        return Guard(bounds(narrow))
    scores = probabilities(outputs)
    confidence, right = scores.max(axis=1), outputs.argmax(axis=1) == labels
    found = threshold(confidence, right, maximum_error=MAXIMUM_ERROR)
    return Guard(bounds(narrow), found or threshold(confidence, right, maximum_fallback=MAXIMUM_FALLBACK))


def statistics(windows: npt.NDArray[np.int8]) -> npt.NDArray[np.int64]:
    """Rows (n, 3) of mean, deviation and saturated share in per mille, for windows (n, ...) of int8.

    Integer arithmetic as on the node: sums, one division each, the deviation as the mean absolute difference from the mean.
    """
    flat = windows.reshape(len(windows), -1).astype(np.int64)
    size = flat.shape[1]
    mean = _rounded(flat.sum(axis=1) * PER_MILLE, size * 128)
    centre = _rounded(flat.sum(axis=1), size)
    deviation = _rounded(np.abs(flat - centre[:, None]).sum(axis=1) * PER_MILLE, size * 128)
    saturated = _rounded(((flat == -128) | (flat == 127)).sum(axis=1) * PER_MILLE, size)
    return np.stack([mean, deviation, saturated], axis=1)


def _rounded(numerator: npt.NDArray[np.int64], denominator: int) -> npt.NDArray[np.int64]:
    """To the nearest, halves up: (2a + b) // 2b, the same in C where the quotient is floored."""
    return (2 * numerator + denominator) // (2 * denominator)


def bounds(windows: npt.NDArray[np.int8]) -> Bounds:
    """What nearly all of these windows (n, ...) keep to, with a quarter of the span to spare."""
    found = statistics(windows)
    low, high = np.quantile(found, _TAIL, axis=0), np.quantile(found, 1 - _TAIL, axis=0)
    room = _ROOM * (high - low) + 10

    def clamp(value: np.floating[Any], least: int) -> int:
        return int(min(max(round(float(value)), least), PER_MILLE))

    return Bounds(
        mean_low=clamp(low[0] - room[0], -PER_MILLE),
        mean_high=clamp(high[0] + room[0], -PER_MILLE),
        deviation_low=clamp(low[1] - room[1], 0),
        deviation_high=clamp(high[1] + room[1], 0),
        saturated_high=clamp(high[2] + room[2], 0),
    )


def out_of_bounds(windows: npt.NDArray[np.int8], limits: Bounds) -> npt.NDArray[np.bool_]:
    """Which of the windows (n, ...) a node would count as out of bounds."""
    mean, deviation, saturated = statistics(windows).T
    return np.asarray(
        (mean < limits.mean_low)
        | (mean > limits.mean_high)
        | (deviation < limits.deviation_low)
        | (deviation > limits.deviation_high)
        | (saturated > limits.saturated_high)
    )


def threshold(
    confidence: npt.NDArray[np.floating[Any]],
    right: npt.NDArray[np.bool_],
    *,
    maximum_error: float | None = None,
    maximum_fallback: float | None = None,
) -> Confidence | None:
    """The lowest threshold whose accepted decisions err at most `maximum_error` (upper end of the 95 % interval), or the
    highest that leaves at most `maximum_fallback` of the windows to the fallback. None: no threshold does.

    confidence: the largest score of each window, 0 to 1. Raises ValueError unless exactly one of the two is given.
    """
    if (maximum_error is None) == (maximum_fallback is None):
        raise ValueError("threshold: give either maximum_error or maximum_fallback")
    levels = np.floor(np.clip(confidence, 0, 1) * PER_MILLE).astype(int)
    found = None
    for per_mille in sorted({0, *(int(level) + 1 for level in levels if level < PER_MILLE)}):
        one = _at(per_mille, levels, right)
        if maximum_error is not None:
            if one.fallback_rate < 1 and one.error_interval[1] <= maximum_error:
                return one
        elif maximum_fallback is not None and one.fallback_rate <= maximum_fallback:
            found = one
    return found


def _at(per_mille: int, levels: npt.NDArray[np.int_], right: npt.NDArray[np.bool_]) -> Confidence:
    accepted = levels >= per_mille
    n = int(accepted.sum())
    wrong = int((accepted & ~right).sum())
    interval = wilson(wrong, n) if n else (0.0, 1.0)
    return Confidence(per_mille, 1 - n / len(levels), wrong / n if n else 0.0, interval)
