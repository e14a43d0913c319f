"""Rounds weights so that errors cancel: each weight's rounding error is fed into the weights not yet rounded.

After E. Frantar et al., "GPTQ" (2022): least error of the layer's output on the calibration data, for scales that stay
as they are. What the rounding shifts on average goes into the bias.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from tflite_micro.tensorflow.lite.micro.python import schema_py_generated as schema

from updates.pipeline.calibration import Moments
from updates.pipeline.integer_image import packed
from updates.pipeline.layerwise import LINEAR, flat, matrix
from updates.pipeline.post_pass import operator_name, pack, unpack

Doubles = npt.NDArray[np.float64]
# Share of the mean variance that every input is given besides its own: few samples span few directions.
DAMPING = 0.05


def reround(quantized: bytes, float_model: bytes, moments: Mapping[str, Moments]) -> bytes:
    """The quantized model with other roundings and biases: same scales, same size, same operators."""
    model, original = unpack(quantized), unpack(float_model)
    graph = model.subgraphs[0]
    exact = {tensor.name.decode(): tensor for tensor in original.subgraphs[0].tensors}
    for operator in graph.operators:
        kind = operator_name(model, operator)
        if kind not in LINEAR:
            continue
        weights = graph.tensors[int(operator.inputs[1])]
        name = weights.name.decode()
        known = moments.get(name)
        source = exact.get(name)
        if known is None or source is None:
            continue
        wanted = matrix(original.buffers[source.buffer].data.view(np.float32), source.shape, kind)
        step = graph.tensors[int(operator.inputs[0])].quantization.scale[0]
        _reround_one(model, operator, kind, wanted, known, float(step))
    return pack(model)


def _reround_one(model: Any, operator: Any, kind: str, wanted: Doubles, moments: Moments, step: float) -> None:
    graph = model.subgraphs[0]
    weights = graph.tensors[int(operator.inputs[1])]
    buffer = model.buffers[weights.buffer]
    four_bits = weights.type == schema.TensorType.INT4
    scale = np.asarray(weights.quantization.scale, np.float64).reshape(-1, 1)
    bias = int(operator.inputs[2]) if len(operator.inputs) > 2 else -1
    spread = moments.covariance if bias >= 0 else moments.covariance + moments.mean[:, :, None] * moments.mean[:, None]
    limit = 7 if four_bits else 127
    rounded = np.empty_like(wanted)
    scales = np.broadcast_to(scale, (len(wanted), 1))
    if kind == "DEPTHWISE_CONV_2D":
        for channel in range(len(wanted)):
            rows = slice(channel, channel + 1)
            rounded[rows] = fed_back(wanted[rows] / scales[rows], spread[channel], limit, step)
    else:
        rounded[:] = fed_back(wanted / scales, spread[0], limit, step)
    values = flat(rounded, kind).astype(np.int8)
    buffer.data = packed(values) if four_bits else values.view(np.uint8)
    if bias >= 0:
        mean = np.broadcast_to(moments.mean, (len(wanted), wanted.shape[1]))
        lost = ((wanted - rounded * scales) * mean).sum(1)
        _add_to_bias(model, graph.tensors[bias], lost)


def fed_back(wanted: Doubles, spread: Doubles, limit: int, step: float) -> Doubles:
    """wanted: (outputs, k) in units of the scale. spread: (k, k) second moments of the inputs. Integers, |w| <= limit.

    step: the inputs' own quantization step, which is noise of variance step^2 / 12 in every direction.
    """
    size = len(spread)
    diagonal = np.diagonal(spread)
    order = np.argsort(-diagonal, kind="stable")
    damped = spread[np.ix_(order, order)] + np.eye(size) * (DAMPING * diagonal.mean() + step * step / 12 + 1e-12)
    inverse = np.linalg.cholesky(np.linalg.inv(damped)).T
    left, rounded = wanted[:, order].copy(), np.empty_like(wanted)
    for index in range(size):
        rounded[:, index] = np.clip(np.rint(left[:, index]), -limit, limit)
        error = (left[:, index] - rounded[:, index]) / inverse[index, index]
        left[:, index + 1 :] -= error[:, None] * inverse[index, index + 1 :]
    back = np.empty_like(rounded)
    back[:, order] = rounded
    return back


def _add_to_bias(model: Any, tensor: Any, lost: Doubles) -> None:
    buffer = model.buffers[tensor.buffer]
    dtype = np.int64 if tensor.type == schema.TensorType.INT64 else np.int32
    scale = np.asarray(tensor.quantization.scale, np.float64)
    limits = np.iinfo(np.int32)
    moved = buffer.data.view(dtype) + np.rint(lost / scale)
    buffer.data = np.clip(moved, limits.min, limits.max).astype(dtype).view(np.uint8)
