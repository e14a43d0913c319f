"""What the float network's tensors hold on the calibration data: ranges, and what each weighted operator is fed with.

The reference kernels, one thread: XNNPACK's float results differ between CPUs, these give the same bytes everywhere.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tflite_micro.tensorflow.lite.micro.python import schema_py_generated as schema

from updates.pipeline.post_pass import operator_name, unpack

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
# Enough for second moments: each sample of a convolution gives as many rows as its output has positions.
ROWS_PER_SAMPLE = 256
# 128 MB of covariances: the layers beyond it, the widest, are rounded to nearest.
_MOST_COVARIANCE_VALUES = 16_000_000


@dataclass(frozen=True)
class Moments:
    """Of the rows that one operator multiplies with its weights: mean (g, k) and covariance (g, k, k).

    g is 1, or the number of channels of a depthwise convolution; k is the number of weights of one output.
    """

    mean: Doubles
    covariance: Doubles


@dataclass(frozen=True)
class Observed:
    """extremes: the smallest and largest value of each computed tensor in each sample, (n, 2), by name. inner: the
    tensors that are neither input nor output of the network. moments: by the weights' name."""

    extremes: dict[str, Doubles]
    inner: frozenset[str]
    moments: dict[str, Moments]

    def ranges(self, share: float = 1.0) -> dict[str, list[tuple[float, float]]]:
        """One pair a tensor. share below 1 leaves out the inner tensors' extremes in as many of the samples (0.98: those
        of the 2 % that reach furthest): what they lose by clipping, all others gain in resolution."""
        found = {}
        for name, values in self.extremes.items():
            kept = share if name in self.inner else 1.0
            low, high = np.quantile(values[:, 0], 1 - kept), np.quantile(values[:, 1], kept)
            found[name] = [(float(low), float(high))]
        return found


def save(observed: Observed, path: Path) -> None:
    """As arrays, never as a pickle: it was made from what a user uploaded."""
    arrays: dict[str, npt.NDArray[Any]] = {}
    for index, values in enumerate(observed.extremes.values()):
        arrays[f"extremes-{index}"] = values
    for index, one in enumerate(observed.moments.values()):
        arrays |= {f"mean-{index}": one.mean, f"covariance-{index}": one.covariance}
    names = json.dumps([list(observed.extremes), sorted(observed.inner), list(observed.moments)])
    with path.open("wb") as file:
        np.savez(file, allow_pickle=False, names=np.frombuffer(names.encode(), np.uint8), **arrays)


def load(path: Path) -> Observed:
    with np.load(path) as arrays:
        computed, inner, weighted = json.loads(arrays["names"].tobytes())
        return Observed(
            {name: arrays[f"extremes-{index}"] for index, name in enumerate(computed)},
            frozenset(inner),
            {
                name: Moments(arrays[f"mean-{index}"], arrays[f"covariance-{index}"])
                for index, name in enumerate(weighted)
            },
        )


def float_interpreter(model: bytes) -> Any:
    """LiteRT with its reference kernels, on one thread, every tensor kept for reading."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    interpreter = Interpreter(
        model_content=model,
        num_threads=1,
        experimental_op_resolver_type=OpResolverType.BUILTIN_REF,
        experimental_preserve_all_tensors=True,
    )
    interpreter.allocate_tensors()
    return interpreter


def observe(model: bytes, inputs: Floats, *, for_moments: npt.NDArray[np.bool_]) -> Observed:
    """model: float TFLite. inputs: (n, ...) in its layout. for_moments: (n,), which of them count for the moments.

    Ranges are true ones, over all inputs: a moving average would clip.
    """
    unpacked = unpack(model)
    graph = unpacked.subgraphs[0]
    interpreter = float_interpreter(model)
    source = interpreter.get_input_details()[0]["index"]
    names = [tensor.name.decode() for tensor in graph.tensors]
    computed = sorted({int(index) for one in graph.operators for index in one.outputs} | {int(graph.inputs[0])})
    weighted = _weighted(unpacked)
    extremes: dict[int, list[tuple[float, float]]] = {}
    sums: dict[str, list[Any]] = {}
    for sample, counts in zip(inputs, for_moments, strict=True):
        interpreter.set_tensor(source, sample[None])
        interpreter.invoke()
        for index in computed:
            values = interpreter.get_tensor(index)
            if values.dtype == np.float32 and values.size:
                extremes.setdefault(index, []).append((float(values.min()), float(values.max())))
        for name, operator in weighted if counts else []:
            rows = rows_of(operator, name, interpreter.get_tensor(int(operator.inputs[0])), graph)
            gathered = sums.setdefault(names[int(operator.inputs[1])], [0, 0.0, 0.0])
            gathered[0] += rows.shape[1]
            gathered[1] += rows.sum(1)
            gathered[2] += rows.transpose(0, 2, 1) @ rows
    return Observed(
        {names[index]: np.array(values) for index, values in extremes.items()},
        frozenset(names[index] for index in extremes)
        - {names[int(index)] for index in (*graph.inputs, *graph.outputs)},
        {name: _moments(*gathered) for name, gathered in sums.items()},
    )


def _moments(count: int, total: Doubles, products: Doubles) -> Moments:
    mean = total / count
    return Moments(mean, products / count - mean[:, :, None] * mean[:, None, :])


def _weighted(model: Any) -> list[tuple[str, Any]]:
    """Operators whose weights are theirs alone (others cannot be rounded for one of their users), within the memory."""
    graph = model.subgraphs[0]
    users: dict[int, int] = {}
    for operator in graph.operators:
        for index in map(int, operator.inputs):
            users[index] = users.get(index, 0) + 1
    found = []
    for operator in graph.operators:
        name = operator_name(model, operator)
        if name in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"):
            weights = int(operator.inputs[1])
            data = model.buffers[graph.tensors[weights].buffer].data
            if users[weights] == 1 and data is not None and len(data):
                found.append((_covariance_values(name, graph.tensors[weights].shape), name, operator))
    left, kept = _MOST_COVARIANCE_VALUES, []
    for values, name, operator in sorted(found, key=lambda one: one[0]):
        left -= values
        if left >= 0:
            kept.append((name, operator))
    return kept


def _covariance_values(name: str, shape: Any) -> int:
    lengths = [int(length) for length in shape]
    if name == "DEPTHWISE_CONV_2D":
        return lengths[3] * (lengths[1] * lengths[2]) ** 2
    return int(np.prod(lengths[1:])) ** 2


def rows_of(operator: Any, name: str, values: Floats, graph: Any, most: int | None = ROWS_PER_SAMPLE) -> Doubles:
    """The rows that meet the weights, (g, rows, k): the im2col of samples (n, ...), each thinned out evenly to about
    `most`."""
    shape = [int(length) for length in graph.tensors[int(operator.inputs[1])].shape]
    if name == "FULLY_CONNECTED":
        return values.astype(np.float64).reshape(1, -1, shape[1])
    options = operator.builtinOptions
    steps, dilations = (options.strideH, options.strideW), (options.dilationHFactor, options.dilationWFactor)
    padding, spans = [], []
    for size, kernel, step, dilation in zip(values.shape[1:3], shape[1:3], steps, dilations, strict=True):
        span = (kernel - 1) * dilation + 1
        same = options.padding == schema.Padding.SAME
        total = max((-(-size // step) - 1) * step + span - size, 0) if same else 0
        padding.append((total // 2, total - total // 2))
        spans.append(span)
    padded = np.pad(values, ((0, 0), *padding, (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, spans, axis=(1, 2))[:, :: steps[0], :: steps[1]]
    windows = windows[..., :: dilations[0], :: dilations[1]]  # (n, h, w, channels, kernel h, kernel w)
    height, width, channels = windows.shape[1:4]
    if most and height * width >= 2 * most:
        kept = np.arange(0, height * width, height * width // most)
        windows = windows[:, kept // width, kept % width][:, None]
    exact: Doubles = windows.astype(np.float64)
    if name == "CONV_2D":
        return exact.transpose(0, 1, 2, 4, 5, 3).reshape(1, -1, channels * shape[1] * shape[2])
    each = exact.transpose(3, 0, 1, 2, 4, 5).reshape(channels, -1, shape[1] * shape[2])
    return each if shape[3] == channels else np.repeat(each, shape[3] // channels, axis=0)
