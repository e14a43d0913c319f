"""How TFLM will lay out its arena on a 32-bit core, from the image alone: the planner's placements and what persists.

The head is TFLM's own greedy planner (tensorflow/lite/micro/memory_planner/greedy_memory_planner.cc: by size, ties by
the later buffer first): equal to the byte on every CNN and fully connected network measured. The tail is a model of what
kernels and the interpreter keep: over by 0.1 to 2.3 % on CNNs and by up to 8.5 % on tiny networks against Cortex-M4 with
CMSIS-NN, never under on 24 int8 files.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from tflite_micro.tensorflow.lite.micro.python import schema_py_generated as schema

from updates.pipeline.post_pass import operator_name, unpack

ALIGNMENT = 16
_TYPE_BITS = {
    "INT4": 4,
    "INT8": 8,
    "UINT8": 8,
    "BOOL": 8,
    "INT16": 16,
    "FLOAT16": 16,
    "INT32": 32,
    "FLOAT32": 32,
    "INT64": 64,
}
_TYPE_NAMES = {value: name for name, value in vars(schema.TensorType).items() if isinstance(value, int)}
# Sizes of TFLM's own structures on a 32-bit core, rounded up: interpreter and allocator, a tensor, a node, a kernel's data.
_BASE_BYTES, _TENSOR_BYTES, _NODE_BYTES = 512, 12, 32
_WEIGHTED_KERNEL_BYTES, _KERNEL_BYTES, _ENDPOINT_BYTES = 112, 64, 64
_WEIGHTED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV")


@dataclass(frozen=True)
class Placement:
    """One buffer of the arena's head: bytes from `offset`, alive from operator `first` to `last` (0: before the first)."""

    name: str
    size: int
    first: int
    last: int
    offset: int = 0


@dataclass(frozen=True)
class ArenaPlan:
    """`operators` names each step; `peak_step` is where most bytes are alive. Sizes are bytes."""

    placements: tuple[Placement, ...]
    operators: tuple[str, ...]
    head_bytes: int
    tail_bytes: int
    peak_step: int

    @property
    def total_bytes(self) -> int:
        return self.head_bytes + self.tail_bytes


def plan(image: bytes, *, kernel_library: str) -> ArenaPlan:
    """For a `.tflite` image of one subgraph that passed the post-pass. kernel_library: `reference` or `cmsis-nn`."""
    model = unpack(image)
    graph = model.subgraphs[0]
    names = tuple(operator_name(model, operator) for operator in graph.operators)
    placed = place([*_tensors(model, graph, names), *_scratch(graph, names, kernel_library)])
    steps = range(len(names) + 1)
    alive = [sum(one.size for one in placed if one.first <= step <= one.last) for step in steps]
    head = max((one.offset + one.size for one in placed), default=0)
    return ArenaPlan(tuple(placed), names, head, _tail(graph, names), max(steps, key=lambda step: alive[step]))


def place(buffers: list[Placement]) -> list[Placement]:
    """Greedy: the largest first, each at the lowest gap between buffers that live at the same time."""
    placed: list[Placement] = []
    order = sorted(range(len(buffers)), key=lambda index: (-buffers[index].size, -index))
    for index in order:
        one, offset = buffers[index], 0
        for other in sorted(placed, key=lambda other: other.offset):
            if other.first > one.last or one.first > other.last:
                continue
            if other.offset - offset >= one.size:
                break
            offset = max(offset, other.offset + other.size)
        placed.append(Placement(one.name, one.size, one.first, one.last, offset))
    return placed


def _tensors(model: Any, graph: Any, names: tuple[str, ...]) -> list[Placement]:
    def constant(index: int) -> bool:
        data = model.buffers[graph.tensors[index].buffer].data
        return data is not None and len(data) > 0

    first: dict[int, int] = {int(index): 0 for index in graph.inputs}
    last: dict[int, int] = {}
    for step, operator in enumerate(graph.operators, start=1):
        for index in map(int, operator.outputs):
            first.setdefault(index, step)
            last[index] = max(last.get(index, step), step)
        for index in map(int, operator.inputs):
            if index >= 0 and not constant(index):
                first.setdefault(index, 0)
                last[index] = max(last.get(index, 0), step)
    for index in map(int, graph.outputs):
        first.setdefault(index, 0)
        last[index] = len(graph.operators)
    return [
        Placement(
            _name(graph, index, names),
            _aligned(tensor_bytes(graph.tensors[index])),
            begun,
            last.get(index, begun),
        )
        for index, begun in sorted(first.items())
        if not graph.tensors[index].isVariable
    ]


def _scratch(graph: Any, names: tuple[str, ...], kernel_library: str) -> list[Placement]:
    """What kernels borrow for one operator: CMSIS-NN's columns; unpacked int4 weights in the reference kernels."""
    found = []
    for step, (operator, name) in enumerate(zip(graph.operators, names, strict=True), start=1):
        if name not in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"):
            continue
        weights = graph.tensors[int(operator.inputs[1])]
        shape, size = [int(length) for length in weights.shape], 0
        wide = 2 if _type_name(graph.tensors[int(operator.inputs[0])]) == "INT16" else 1
        if kernel_library == "cmsis-nn":
            if name == "CONV_2D" and shape[1:3] != [1, 1]:
                size = 4 * wide * shape[1] * shape[2] * shape[3]
            elif name == "DEPTHWISE_CONV_2D":
                size = 2 * wide * shape[1] * shape[2] * shape[3]
        elif _type_name(weights) == "INT4":
            size = math.prod(shape)
        if size:
            found.append(Placement(f"scratch of {name} {step}", _aligned(size), step, step))
    return found


def _tail(graph: Any, names: tuple[str, ...]) -> int:
    kept = 0
    for operator, name in zip(graph.operators, names, strict=True):
        if name not in _WEIGHTED:
            kept += 0 if name == "RESHAPE" else _KERNEL_BYTES
            continue
        weights = graph.tensors[int(operator.inputs[1])]
        scales = weights.quantization.scale if weights.quantization is not None else None
        channels = 0 if scales is None else len(scales)
        kept += _WEIGHTED_KERNEL_BYTES
        if name != "FULLY_CONNECTED":
            kept += 2 * _aligned(4 * int(weights.shape[3 if name == "DEPTHWISE_CONV_2D" else 0]))
        elif channels > 1:
            kept += 2 * _aligned(4 * channels)
    kept += sum(_aligned(tensor_bytes(tensor)) for tensor in graph.tensors if tensor.isVariable)
    structures = _aligned(_TENSOR_BYTES * len(graph.tensors)) + _aligned(_NODE_BYTES * len(names))
    return _BASE_BYTES + structures + kept + (len(graph.inputs) + len(graph.outputs)) * _ENDPOINT_BYTES


def tensor_bytes(tensor: Any) -> int:
    """Bytes of one tensor as it lies in memory. int4 takes half a byte a value."""
    values = math.prod(int(length) for length in tensor.shape) if tensor.shape is not None else 1
    return math.ceil(values * _TYPE_BITS[_type_name(tensor)] / 8)


def _type_name(tensor: Any) -> str:
    return str(_TYPE_NAMES[tensor.type])


def _name(graph: Any, index: int, names: tuple[str, ...]) -> str:
    """Its own, which the post-pass takes out, else by what makes it."""
    if graph.tensors[index].name:
        return str(graph.tensors[index].name.decode(errors="replace"))
    for step, operator in enumerate(graph.operators, start=1):
        if index in map(int, operator.outputs):
            return f"{names[step - 1]} {step}"
    return "input" if index in map(int, graph.inputs) else f"tensor {index}"


def _aligned(size: int) -> int:
    return (size + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT
