"""The linear layers of a quantized .tflite image, read and written in place: nothing else in its bytes moves."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from tflite_micro.tensorflow.lite.micro.python import schema_py_generated as schema

from updates.pipeline.layerwise import LINEAR, flat, matrix
from updates.pipeline.post_pass import operator_name, unpack
from updates.pipeline.types import Refused

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
_BOUNDS = {schema.TensorType.INT8: 127, schema.TensorType.INT4: 7}


@dataclass(frozen=True)
class LinearInteger:
    """weights: (outputs, k) integers of magnitude <= limit; scale: (outputs,), the same in all where there is one a tensor;
    bias: (outputs,) integers of scale bias_scale, or None."""

    weights: Doubles
    scale: Doubles
    bias: Doubles | None
    bias_scale: Doubles
    limit: int


class IntegerImage:
    """`data` is the image; writing changes it and never its size. Raises Refused (stage against) where it is none."""

    def __init__(self, image: bytes) -> None:
        if image[4:8] != b"TFL3":
            raise _refused("is not a .tflite file", "give the exact bytes of the slot that most nodes hold")
        self.data = bytearray(image)
        self._model = schema.Model.GetRootAs(self.data, 0)
        self._graph = self._model.Subgraphs(0)
        self.tables = unpack(bytes(image))
        tables = self.tables.subgraphs[0]
        self.kinds = [operator_name(self.tables, operator) for operator in tables.operators]
        self._linear = [
            (kind, operator)
            for kind, operator in zip(self.kinds, tables.operators, strict=True)
            if kind in LINEAR and self._buffer(int(operator.inputs[1])).size
        ]

    def __len__(self) -> int:
        """How many linear layers there are."""
        return len(self._linear)

    def shape(self, index: int) -> tuple[int, ...]:
        """Of a layer's weights."""
        return tuple(int(n) for n in self.tables.subgraphs[0].tensors[int(self._linear[index][1].inputs[1])].shape)

    def linear(self, index: int) -> LinearInteger:
        kind, operator = self._linear[index]
        place, shape = int(operator.inputs[1]), self.shape(index)
        limit = _BOUNDS[self.tables.subgraphs[0].tensors[place].type]
        stored = self._buffer(place)
        values = stored.view(np.int8) if limit == 127 else unpacked(stored, int(np.prod(shape)))
        weights = matrix(values, shape, kind)
        scale = np.broadcast_to(self._scale(place).astype(np.float64), (len(weights),))
        if len(operator.inputs) < 3 or int(operator.inputs[2]) < 0:
            return LinearInteger(weights, scale, None, scale * self.input_scale(index), limit)
        bias = self._biases(int(operator.inputs[2])).astype(np.float64)
        bias_scale = self._scale(int(operator.inputs[2])).astype(np.float64)
        return LinearInteger(weights, scale, bias, np.broadcast_to(bias_scale, bias.shape), limit)

    def write(self, index: int, weights: Doubles, bias: Doubles | None, scale: Doubles, bias_scale: Doubles) -> None:
        """All as in LinearInteger; a tensor with one scale takes the first."""
        kind, operator = self._linear[index]
        place = int(operator.inputs[1])
        values = flat(np.rint(weights), kind).astype(np.int8)
        four_bits = self.tables.subgraphs[0].tensors[place].type == schema.TensorType.INT4
        self._buffer(place)[:] = packed(values) if four_bits else values.view(np.uint8)
        scales = self._scale(place)
        scales[:] = scale[: len(scales)]
        if bias is not None:
            stored = self._biases(int(operator.inputs[2]))
            stored[:] = bias.astype(stored.dtype)
            scales = self._scale(int(operator.inputs[2]))
            scales[:] = bias_scale[: len(scales)]

    def input_scale(self, index: int) -> float:
        return float(self._scale(int(self._linear[index][1].inputs[0]))[0])

    def as_taken(self, index: int, values: Floats) -> Floats:
        """What a layer sees of these inputs, (n, ...): rounded to its input's scale and held to its type."""
        place = int(self._linear[index][1].inputs[0])
        limits = np.iinfo(
            np.int16 if self.tables.subgraphs[0].tensors[place].type == schema.TensorType.INT16 else np.int8
        )
        scale, zero = np.float32(self._scale(place)[0]), float(self._tensor(place).Quantization().ZeroPoint(0))
        levels = np.clip(np.rint(values / scale) + zero, limits.min, limits.max)
        taken: Floats = ((levels - zero) * scale).astype(np.float32)
        return taken

    def shared(self) -> list[int]:
        """Buffers of linear layers that something else uses too: they cannot be written for one of their users."""
        tensors = self.tables.subgraphs[0].tensors
        users = Counter(int(tensor.buffer) for tensor in tensors)
        own = [int(index) for _, operator in self._linear for index in operator.inputs[1:] if index >= 0]
        uses = Counter(own)
        return sorted({tensors[place].buffer for place in own if users[tensors[place].buffer] > 1 or uses[place] > 1})

    def take_constants(self, other: IntegerImage) -> None:
        """All constants but the linear layers' from an image of the same graph, with their scales."""
        chosen = {int(index) for _, operator in self._linear for index in operator.inputs[1:]}
        for place in range(len(self.tables.subgraphs[0].tensors)):
            if place not in chosen and self._buffer(place).size:
                self._buffer(place)[:] = other._buffer(place)
                self._take_quantization(place, other)

    def take_outgrown_activations(self, other: IntegerImage, growth: float) -> None:
        """The scales and zero points of what is computed, where in an image of the same graph they are `growth` times
        larger. Where an operator hands a scale on, both sides grow alike."""
        for place in range(len(self.tables.subgraphs[0].tensors)):
            grown = other._largest_scale(place) > growth * self._largest_scale(place)
            if grown and not self._buffer(place).size:
                self._take_quantization(place, other)

    def _take_quantization(self, place: int, other: IntegerImage) -> None:
        mine, theirs = self._tensor(place).Quantization(), other._tensor(place).Quantization()
        if mine is None or theirs is None:
            return
        for read in ("ScaleAsNumpy", "ZeroPointAsNumpy"):
            to, source = getattr(mine, read)(), getattr(theirs, read)()
            if not isinstance(to, int) and not isinstance(source, int):
                to[:] = source

    def _tensor(self, place: int) -> Any:
        return self._graph.Tensors(place)

    def _buffer(self, place: int) -> npt.NDArray[np.uint8]:
        """The bytes of a tensor where they lie; empty where it is computed."""
        found = self._model.Buffers(self._tensor(place).Buffer()).DataAsNumpy()
        return np.empty(0, np.uint8) if isinstance(found, int) else found

    def _scale(self, place: int) -> npt.NDArray[np.float32]:
        found: npt.NDArray[np.float32] = self._tensor(place).Quantization().ScaleAsNumpy()
        return found

    def _largest_scale(self, place: int) -> float:
        """0 where a tensor has none."""
        quantization = self._tensor(place).Quantization()
        return 0.0 if quantization is None else float(np.max(quantization.ScaleAsNumpy(), initial=0.0))

    def _biases(self, place: int) -> npt.NDArray[Any]:
        wide = self.tables.subgraphs[0].tensors[place].type == schema.TensorType.INT64
        return self._buffer(place).view(np.int64 if wide else np.int32)


def check_same_graph(image: IntegerImage, base: IntegerImage) -> None:
    """Raises Refused (stage against) where one cannot be written into the other's bytes, naming what differs."""
    ours, theirs = image.tables.subgraphs[0], base.tables.subgraphs[0]
    differs = None
    if image.kinds != base.kinds:
        differs = f"operators {' '.join(base.kinds)}, the new version has {' '.join(image.kinds)}"
    elif len(ours.tensors) != len(theirs.tensors):
        differs = f"{len(theirs.tensors)} tensors, the new version has {len(ours.tensors)}"
    else:
        for at, (new, old) in enumerate(zip(ours.operators, theirs.operators, strict=True)):
            if [list(new.inputs), list(new.outputs)] != [list(old.inputs), list(old.outputs)] or _options(
                new
            ) != _options(old):
                differs = f"operator {at}, {base.kinds[at]}, with other options or connections than the new version"
                break
        for at, (new, old) in enumerate(zip(ours.tensors, theirs.tensors, strict=True)):
            if _form(image, at, new) != _form(base, at, old):
                differs = f"tensor {at} of shape {_form(base, at, old)}, the new version has {_form(image, at, new)}"
                break
    if differs is None and (shared := base.shared()):
        differs = f"a buffer that several tensors share ({shared[0]})"
    if differs:
        raise _refused(f"has {differs}", "use a base of the same network and target class, or send the plain image")


def _refused(message: str, fix: str) -> Refused:
    return Refused(stage="against", code="other_graph", field="against", message=f"the base image {message}", fix=fix)


def _options(operator: Any) -> dict[str, Any]:
    return (
        {}
        if operator.builtinOptions is None
        else {key: str(value) for key, value in vars(operator.builtinOptions).items()}
    )


def _form(image: IntegerImage, place: int, tensor: Any) -> tuple[Any, ...]:
    quantization = tensor.quantization
    scales = 0 if quantization is None or quantization.scale is None else len(quantization.scale)
    shape = () if tensor.shape is None else tuple(int(length) for length in tensor.shape)
    return shape, int(tensor.type), scales, image._buffer(place).size


def packed(values: npt.NDArray[np.int8]) -> npt.NDArray[np.uint8]:
    """Two 4-bit values a byte, the first in the low half."""
    padded = np.append(values, np.int8(0)) if len(values) % 2 else values
    halves = padded.view(np.uint8) & 0xF
    return (halves[0::2] | (halves[1::2] << 4)).astype(np.uint8)


def unpacked(stored: npt.NDArray[np.uint8], count: int) -> npt.NDArray[np.int8]:
    """The other way round."""
    halves = np.stack([stored & 0xF, stored >> 4], 1).reshape(-1)[:count]
    return ((halves ^ 8).astype(np.int16) - 8).astype(np.int8)
