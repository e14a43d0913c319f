"""Rounds a layer's weights to integers near deployed ones: least output error for the bits that the patch may cost.

First error feedback as in `weight_rounding`, but each weight may also stay at the deployed value, or stop on the way to it,
where that saves more bits than its error is worth. Then sweeps that choose each weight again, knowing all others. The bits
are those of an adaptive coder of the changes: it learns how often weights change, in which rows and columns, and how far.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]
Places = npt.NDArray[np.intp]
# Share of the mean second moment that every input is given besides its own: few samples span few directions. More of it
# where weights make good what was lost: what they learn from chance costs bits (measured: 9 % on an autoencoder).
DAMPING, _DAMPING_OF_REGAINED = 0.005, 0.03
# Fewer rows than so many for each of the k tell less of the spread than chance does (measured, 80 samples of 640 inputs).
_FEW_ROWS = 2.0
# Sweeps take a third off what an autoencoder loses at the same bytes; beyond six they add little (measured).
_SWEEPS = 6
_BIAS_BOUND = 2.0**31 - 1
_FARTHEST = 256
_LEAST_SHARE, _MOST_SHARE = 2e-4, 0.98
# Before anything has been seen: even odds, and distances as an Elias gamma code has them.
_FIRST_STAYS, _FIRST_CHANGES = 0.5, 1.8
# A bias that changes: the length of its change and the change.
_BIAS_STAYS, _BIAS_CHANGES = 0.3, 5.0


@dataclass(frozen=True)
class Fed:
    """Second moments of what reaches a layer, each (g, k, k); g is 1, or the number of channels where each has its own.

    taken: E[z z'] of the rounded network's input z. lost: E[(x - z) z'], x the float network's. The last of the k is
    the bias's constant input where there is a bias. rows: how many inputs that was learnt from.
    """

    taken: Doubles
    lost: Doubles
    rows: float = np.inf


@dataclass(frozen=True)
class _Rates:
    """Bits of "stays" and of "changes" by weight, each (outputs, k), and of sign and distance by distance - 1, (256,).
    The columns behind these k are biases."""

    stays: Doubles
    changes: Doubles
    distance: Doubles

    def bits(self, column: int, distances: Doubles) -> Doubles:
        """distances: (choices, outputs), of the changes in one column."""
        if column >= self.stays.shape[1]:
            return np.where(distances == 0, _BIAS_STAYS, _BIAS_CHANGES + np.log2(1 + distances))
        far = self.distance[np.clip(distances, 1, _FARTHEST).astype(np.intp) - 1]
        found: Doubles = np.where(distances == 0, self.stays[:, column], self.changes[:, column] + far)
        return found


def towards(
    wanted: Doubles, deployed: Doubles, fed: Fed, price: Doubles, *, limit: int, bias: bool
) -> npt.NDArray[np.float64]:
    """Integers (outputs, k) for the float values `wanted` and the deployed integers, both (outputs, k), in steps.

    price: (outputs,), the squared error, in steps times input, that a bit is worth. |weight| <= limit; with `bias` the
    last column holds 32-bit biases.
    """
    damped = _damped(fed, bias, DAMPING)
    # What earlier layers lost, these weights make good as far as their inputs tell (least squares).
    regained = (
        np.linalg.solve(_damped(fed, bias, _DAMPING_OF_REGAINED), fed.lost.transpose(0, 2, 1))
        .transpose(0, 2, 1)
        .astype(np.float64)
    )
    order = _order(damped, bias)
    group = np.arange(len(damped))[:, None, None]
    moments = damped[group, order[:, :, None], order[:, None, :]]
    places = np.broadcast_to(order, wanted.shape)
    aim = np.take_along_axis(wanted + _rows_times(wanted, regained), places, 1)
    old = np.take_along_axis(deployed, places, 1)
    bounds = np.full(wanted.shape[1], float(limit))
    if bias:
        bounds[-1] = _BIAS_BOUND
    weights = wanted.shape[1] - bias
    rounded = _feed_back(aim, old, moments, price, _unseen((len(wanted), weights)), bounds)
    for _ in range(_SWEEPS):
        rates = _seen(rounded[:, :weights] - old[:, :weights])
        rounded = _sweep(aim, old, rounded, moments, price, rates, bounds)
    back = np.empty_like(rounded)
    np.put_along_axis(back, places, rounded, 1)
    return back


def _damped(fed: Fed, bias: bool, share: float) -> Doubles:
    taken, size = fed.taken, fed.taken.shape[1]
    share *= max(1.0, _FEW_ROWS * size / fed.rows) ** 2
    diagonal = np.diagonal(taken, axis1=1, axis2=2)
    extra = np.zeros((len(taken), size))
    extra[:, : size - bias] = share * diagonal[:, : size - bias].mean(1, keepdims=True)
    extra += 1e-9 * diagonal.mean(1, keepdims=True) + 1e-12
    return taken + extra[:, :, None] * np.eye(size)


def _rows_times(rows: Doubles, matrices: Doubles) -> Doubles:
    """Each row by its matrix: (outputs, k) and (g, k, k)."""
    found: Doubles = rows @ matrices[0] if len(matrices) == 1 else np.matmul(rows[:, None, :], matrices)[:, 0]
    return found


def _order(damped: Doubles, bias: bool) -> Places:
    """(g, k): the strongest inputs first, a bias last: it takes what all others left."""
    diagonal = np.diagonal(damped, axis1=1, axis2=2).copy()
    if bias:
        diagonal[:, -1] = -1
    return np.argsort(-diagonal, axis=1, kind="stable")


def _feed_back(aim: Doubles, old: Doubles, moments: Doubles, price: Doubles, rates: _Rates, bounds: Doubles) -> Doubles:
    """Column by column; each error goes into the columns not yet rounded."""
    factor: Doubles = np.linalg.cholesky(np.linalg.inv(moments)).transpose(0, 2, 1)
    left, rounded = aim.copy(), np.empty_like(aim)
    for at in range(aim.shape[1]):
        scale = factor[:, at, at]
        rounded[:, at] = _best(left[:, at], old[:, at], None, 1 / scale**2, price, rates, at, bounds[at])
        error = (left[:, at] - rounded[:, at]) / scale
        left[:, at + 1 :] -= error[:, None] * factor[:, at, at + 1 :]
    return rounded


def _sweep(
    aim: Doubles, old: Doubles, now: Doubles, moments: Doubles, price: Doubles, rates: _Rates, bounds: Doubles
) -> Doubles:
    """Column by column the best integer, given what all other columns are."""
    rounded = now.copy()
    pull = _rows_times(aim - rounded, moments)
    for at in range(aim.shape[1]):
        stiffness = moments[:, at, at]
        here = rounded[:, at] + pull[:, at] / stiffness
        best = _best(here, old[:, at], rounded[:, at], stiffness, price, rates, at, bounds[at])
        pull -= (best - rounded[:, at])[:, None] * moments[:, at]
        rounded[:, at] = best
    return rounded


def _best(
    wanted: Doubles,
    old: Doubles,
    now: Doubles | None,
    weight: Doubles,
    price: Doubles,
    rates: _Rates,
    at: int,
    bound: float,
) -> Doubles:
    """(outputs,): of the deployed value, the nearest and some on the way, what costs least: weight * error^2 + price * bits."""
    nearest = np.rint(wanted)
    step = np.sign(old - nearest)
    found = [old, nearest, nearest + step, nearest + 2 * step, np.rint((nearest + old) / 2), old - step]
    choices = np.clip(np.stack(found if now is None else [*found, now]), -bound, bound)
    cost = weight * (wanted - choices) ** 2 + price * rates.bits(at, np.abs(choices - old))
    best: Doubles = choices[np.argmin(cost, 0), np.arange(len(wanted))]
    return best


def _unseen(shape: tuple[int, int]) -> _Rates:
    distance = 1 + 2 * np.log2(np.arange(1.0, _FARTHEST + 1))
    return _Rates(np.full(shape, _FIRST_STAYS), np.full(shape, _FIRST_CHANGES), distance)


def _seen(moved: Doubles) -> _Rates:
    share = _shares(moved != 0)
    return _Rates(-np.log2(1 - share), -np.log2(share), _distances(moved))


def _shares(moved: npt.NDArray[np.bool_]) -> Doubles:
    """How likely each weight changes, by how often its row and its column do."""

    def logit(share: Doubles) -> Doubles:
        odds: Doubles = np.log(share / (1 - share))
        return odds

    rows, columns = moved.shape
    whole = np.clip(np.full(1, moved.mean()), _LEAST_SHARE, _MOST_SHARE)
    by_row = np.clip((moved.sum(1) + 4 * whole) / (columns + 4), _LEAST_SHARE, _MOST_SHARE)
    by_column = np.clip((moved.sum(0) + 4 * whole) / (rows + 4), _LEAST_SHARE, _MOST_SHARE)
    odds = logit(by_row)[:, None] + logit(by_column)[None] - logit(whole)
    share: Doubles = np.clip(1 / (1 + np.exp(-odds)), _LEAST_SHARE, _MOST_SHARE)
    return share


def _distances(moved: Doubles) -> Doubles:
    """Bits of sign and size of a change by 1, 2, ... 256: counted up to 8, beyond as an Elias gamma code."""
    seen = np.bincount(np.clip(np.abs(moved[moved != 0]), 1, 8).astype(np.intp), minlength=9)[1:]
    counts = seen + np.array([4, 1, 0.5, 0.25, 0.12, 0.06, 0.03, 0.03])
    bits = -np.log2(counts / counts.sum())
    return 1 + np.concatenate([bits[:7], bits[7] + 2 * np.log2(np.arange(8, _FARTHEST + 1) - 6.0)])
