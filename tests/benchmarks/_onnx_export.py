"""A network of `_networks.py` as ONNX: its own forward function is run once over an operator-recording tape."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.benchmarks._networks import Array, Forward, Network, Node, Tape, Unit


def export(units: Network, forward: Forward, shape: tuple[int, ...]) -> bytes:
    """shape: of one input, channels last; the model takes them first, as ONNX does. Batch normalization is folded."""
    tape = _Recorder()
    first = Node(np.zeros((1, *shape), np.float32))
    moved = shape if len(shape) == 1 else (shape[-1], *shape[:-1])
    tape.name(first, "x")
    last = forward(units, tape, first)
    graph = helper.make_graph(
        tape.nodes,
        "network",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, *moved])],
        [helper.make_tensor_value_info(tape.names[id(last)], TensorProto.FLOAT, list(last.value.shape))],
        [numpy_helper.from_array(np.ascontiguousarray(value), name) for name, value in tape.constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


class _Recorder(Tape):
    def __init__(self) -> None:
        super().__init__(statistics=False)
        self.nodes: list[onnx.NodeProto] = []
        self.names: dict[int, str] = {}
        self.constants: dict[str, Array] = {}
        self._kept: list[Node] = []  # an id is a name only while its node lives

    def name(self, node: Node, name: str) -> None:
        self.names[id(node)] = name
        self._kept.append(node)

    def _add(self, kind: str, node: Node, inputs: list[str], **attributes: object) -> Node:
        name = f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], name, **attributes))
        self.name(node, name)
        return node

    def _constant(self, value: Array) -> str:
        name = f"constant_{len(self.constants)}"
        self.constants[name] = value.astype(np.float32)
        return name

    def unit(self, unit: Unit, x: Node) -> Node:
        source = self.names[id(x)]
        weight, bias = unit.folded()
        plain = Node({"conv": self._conv, "depthwise": self._depthwise, "dense": self._dense}[unit.sort](unit, x).value)
        given = [source, self._constant(_as_onnx(unit, weight)), self._constant(bias)]
        if unit.sort == "dense":
            self._add("Gemm", plain, given, transB=1)
        else:
            padding = [unit.size[0] // 2, unit.size[1] // 2]
            self._add(
                "Conv", plain, given, kernel_shape=list(unit.size), pads=[*padding, *padding],
                strides=[unit.stride] * 2, group=unit.outputs if unit.sort == "depthwise" else 1,
            )  # fmt: skip
        return self.relu(plain) if unit.relu else plain

    def relu(self, x: Node) -> Node:
        return self._add("Relu", super().relu(x), [self.names[id(x)]])

    def plus(self, a: Node, b: Node) -> Node:
        return self._add("Add", super().plus(a, b), [self.names[id(a)], self.names[id(b)]])

    def average(self, x: Node) -> Node:
        pooled = self._add("GlobalAveragePool", Node(x.value), [self.names[id(x)]])
        return self._add("Flatten", super().average(x), [self.names[id(pooled)]])


def _as_onnx(unit: Unit, weight: Array) -> Array:
    tall, wide = unit.size
    if unit.sort == "conv":
        return weight.reshape(unit.outputs, tall, wide, unit.inputs).transpose(0, 3, 1, 2)
    if unit.sort == "depthwise":
        return weight.T.reshape(unit.outputs, 1, tall, wide)
    return weight
