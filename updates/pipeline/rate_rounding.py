"""Rounds a layer's weights to integers near deployed ones: least output error for the bits that the patch may cost.

Error feedback as in `weight_rounding`, but each weight may also stay at the deployed value, or stop on the way to it, where
that saves more bits than its error is worth (rate-distortion optimized GPTQ). The bits are those of an adaptive coder of
the changes: it learns how often weights change, in which rows and columns, and how far.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]
# Share of the mean second moment that every input is given besides its own: few samples span few directions.
DAMPING = 0.02
_PASSES = 3
_FARTHEST = 255
_LEAST_SHARE, _MOST_SHARE = 2e-4, 0.98
# A bias that changes: the length of its change and the change.
_BIAS_BITS, _BIAS_SAME_BITS = 5.0, 0.3


@dataclass(frozen=True)
class Fed:
    """Second moments of what reaches a layer, each (g, k, k); g is 1, or the number of channels where each has its own.

    taken: E[z z'] of the rounded network's input z. lost: E[(x - z) z'], x the float network's. The last of the k is
    the bias's constant input where there is a bias.
    """

    taken: Doubles
    lost: Doubles


def towards(
    wanted: Doubles, deployed: Doubles, fed: Fed, price: Doubles, *, limit: int, bias: bool
) -> npt.NDArray[np.float64]:
    """Integers (outputs, k) for the float values `wanted` and the deployed integers, both (outputs, k), in steps.

    price: (outputs,), the squared error, in steps times input, that a bit is worth. |weight| <= limit; with `bias` the
    last column holds 32-bit biases.
    """
    damped = _damped(fed.taken, bias)
    # What earlier layers lost, these weights make good as far as their inputs tell (least squares).
    regained = np.linalg.solve(damped, fed.lost.transpose(0, 2, 1)).transpose(0, 2, 1).astype(np.float64)
    wanted = wanted + _rows_times(wanted, regained)
    order = _order(damped, bias)
    inverse = _feedback(damped, order)
    weights = wanted.shape[1] - bias
    zero, changed, far = np.full(wanted.shape, 0.5), np.full(wanted.shape, 1.8), 1.0 + 2.0 * np.log2(np.arange(1, 257))
    rounded = deployed
    for _ in range(_PASSES):
        rounded = _one_pass(wanted, deployed, order, inverse, price, (zero, changed, far), limit, bias)
        moved = rounded[:, :weights] - deployed[:, :weights]
        zero[:, :weights], changed[:, :weights] = _shares(moved != 0)
        far = _distances(moved)
    return rounded


def _damped(taken: Doubles, bias: bool) -> Doubles:
    size = taken.shape[1]
    diagonal = np.diagonal(taken, axis1=1, axis2=2)[:, : size - bias]
    extra = np.zeros((len(taken), size))
    extra[:, : size - bias] = DAMPING * diagonal.mean(1, keepdims=True)
    extra += 1e-9 * np.diagonal(taken, axis1=1, axis2=2).mean(1, keepdims=True) + 1e-12
    return taken + extra[:, :, None] * np.eye(size)


def _rows_times(rows: Doubles, matrices: Doubles) -> Doubles:
    """Each row by its matrix: (outputs, k) and (g, k, k)."""
    found: Doubles = rows @ matrices[0] if len(matrices) == 1 else np.matmul(rows[:, None, :], matrices)[:, 0]
    return found


def _order(damped: Doubles, bias: bool) -> npt.NDArray[np.intp]:
    """(g, k): the strongest inputs first, a bias last: it takes what all others left."""
    diagonal = np.diagonal(damped, axis1=1, axis2=2).copy()
    if bias:
        diagonal[:, -1] = -1
    return np.argsort(-diagonal, axis=1, kind="stable")


def _feedback(damped: Doubles, order: npt.NDArray[np.intp]) -> Doubles:
    group = np.arange(len(damped))[:, None, None]
    ordered = damped[group, order[:, :, None], order[:, None, :]]
    factor: Doubles = np.linalg.cholesky(np.linalg.inv(ordered)).transpose(0, 2, 1)
    return factor


def _one_pass(
    wanted: Doubles,
    deployed: Doubles,
    order: npt.NDArray[np.intp],
    inverse: Doubles,
    price: Doubles,
    rates: tuple[Doubles, Doubles, Doubles],
    limit: int,
    bias: bool,
) -> Doubles:
    places = np.broadcast_to(order, wanted.shape) if len(order) == 1 else order
    zero, changed, far = rates
    left, old, same, other = (np.take_along_axis(one, places, 1) for one in (wanted, deployed, zero, changed))
    rounded = np.empty_like(left)
    size = left.shape[1]
    for at in range(size):
        is_bias = bias and at == size - 1
        bound = 2.0**31 - 1 if is_bias else float(limit)
        choices = _choices(left[:, at], old[:, at], bound)
        distance = np.abs(choices - old[:, at])
        if is_bias:
            bits = np.where(distance == 0, _BIAS_SAME_BITS, _BIAS_BITS + np.log2(1 + distance))
        else:
            bits = np.where(
                distance == 0, same[:, at], other[:, at] + far[np.clip(distance, 1, _FARTHEST).astype(np.intp) - 1]
            )
        scale = inverse[:, at, at]
        cost = ((left[:, at] - choices) / scale) ** 2 + price * bits
        best = choices[np.argmin(cost, 0), np.arange(len(left))]
        rounded[:, at] = best
        error = (left[:, at] - best) / scale
        left[:, at + 1 :] -= error[:, None] * inverse[:, at, at + 1 :]
    back = np.empty_like(rounded)
    np.put_along_axis(back, places, rounded, 1)
    return back


def _choices(wanted: Doubles, old: Doubles, bound: float) -> Doubles:
    """(6, outputs): the deployed value, the nearest and those on the way from it to the deployed one."""
    nearest = np.rint(wanted)
    step = np.sign(old - nearest)
    found = [old, nearest, nearest + step, nearest + 2 * step, np.rint((nearest + old) / 2), old - step]
    choices: Doubles = np.clip(np.stack(found), -bound, bound)
    return choices


def _shares(moved: npt.NDArray[np.bool_]) -> tuple[Doubles, Doubles]:
    """Bits of "stays" and of "changes" for each weight, by how often its row and its column change."""

    def logit(share: Doubles) -> Doubles:
        return np.log(share / (1 - share))

    rows, columns = moved.shape
    whole = np.clip(moved.mean(), _LEAST_SHARE, _MOST_SHARE)
    by_row = np.clip((moved.sum(1) + 4 * whole) / (columns + 4), _LEAST_SHARE, _MOST_SHARE)
    by_column = np.clip((moved.sum(0) + 4 * whole) / (rows + 4), _LEAST_SHARE, _MOST_SHARE)
    share = 1 / (1 + np.exp(-(logit(by_row)[:, None] + logit(by_column)[None] - logit(whole))))
    share = np.clip(share, _LEAST_SHARE, _MOST_SHARE)
    return -np.log2(1 - share), -np.log2(share)


def _distances(moved: Doubles) -> Doubles:
    """Bits of sign and size of a change by 1, 2, ... 256."""
    counts = np.bincount(np.clip(np.abs(moved[moved != 0]), 1, 8).astype(np.intp), minlength=9)[1:] + np.array(
        [4, 1, 0.5, 0.25, 0.12, 0.06, 0.03, 0.03]
    )
    bits = -np.log2(counts / counts.sum())
    far = np.empty(256)
    far[:8] = bits
    far[7:] = bits[7] + 2 * np.log2(np.arange(8, 257) - 6.0)
    return 1 + far
