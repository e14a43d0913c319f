"""The numbers that say whether two networks decide alike. Pure functions on arrays."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.floating[Any]]
_Z_95 = 1.959964
_BINS = 15


def wilson(successes: int, n: int) -> tuple[float, float]:
    """95 % interval of a proportion (E. B. Wilson, J. Am. Stat. Assoc. 22, 1927). n from 1."""
    p, z2 = successes / n, _Z_95**2
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z_95 / (1 + z2 / n) * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def mcnemar(lost: int, gained: int) -> float:
    """Exact two-sided p-value (Q. McNemar, Psychometrika 12, 1947; binomial form) that both networks err alike.

    lost: samples that only the original decided rightly; gained: only the quantized one.
    """
    n, fewer = lost + gained, min(lost, gained)
    if n == 0:
        return 1.0
    # In logarithms: 2^-n alone is 0 in floating point from n = 1075 on.
    terms = [
        math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) - n * math.log(2) for k in range(fewer + 1)
    ]
    return min(1.0, 2 * math.fsum(math.exp(term) for term in terms))


def probabilities(outputs: Array) -> npt.NDArray[np.float64]:
    """Rows (n, classes) as distributions: as they are where they are ones already, else their softmax."""
    rows = outputs.astype(np.float64)
    sums = rows.sum(axis=1)
    if (rows >= 0).all() and np.abs(sums - 1).max(initial=0) < 0.05:
        # An int8 softmax is rounded to 1/256 a class.
        return np.asarray(rows / np.maximum(sums, 1e-12)[:, None])
    exponents = np.exp(rows - rows.max(axis=1, keepdims=True))
    return np.asarray(exponents / exponents.sum(axis=1, keepdims=True))


def kl_divergence(reference: Array, other: Array) -> float:
    """Mean over rows of KL(reference || other) in nats; both (n, classes) distributions. Zeros count as 1/512."""
    floor = 1 / 512  # half of the smallest step of an int8 softmax
    p, q = np.maximum(reference, floor), np.maximum(other, floor)
    p, q = p / p.sum(axis=1, keepdims=True), q / q.sum(axis=1, keepdims=True)
    return float((p * np.log(p / q)).sum(axis=1).mean())


def calibration_error(distributions: Array, labels: npt.NDArray[np.int64]) -> float:
    """Expected calibration error, 15 bins of equal width (C. Guo et al., ICML 2017): 0 is perfect, 1 the worst."""
    confidence, right = distributions.max(axis=1), distributions.argmax(axis=1) == labels
    bins = np.minimum((confidence * _BINS).astype(int), _BINS - 1)
    gaps = [
        abs(right[bins == one].mean() - confidence[bins == one].mean()) * (bins == one).sum()
        for one in set(bins.tolist())
    ]
    return float(sum(gaps) / len(labels))


def area_under_curve(scores: Array, anomalous: npt.NDArray[np.bool_]) -> float:
    """Chance that an anomalous sample scores higher than a normal one; ties count half (Mann-Whitney).

    Raises ValueError unless there are samples of both kinds.
    """
    positives = int(anomalous.sum())
    negatives = len(anomalous) - positives
    if not positives or not negatives:
        raise ValueError("area under the curve: needs normal and anomalous samples")
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]
    return float((ranks[anomalous].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def threshold_at(scores: Array, false_alarm_rate: float) -> float:
    """The score that at most this share of normal samples exceeds. scores: of normal samples, n from 1."""
    ordered = np.sort(scores.astype(np.float64))
    allowed = math.floor(false_alarm_rate * len(ordered))
    return float(ordered[len(ordered) - 1 - allowed])
