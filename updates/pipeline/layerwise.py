"""Runs a float network one operator after another, so that a layer's weights can be chosen knowing what reaches it.

Linear layers are multiplied here; every other operator runs alone in LiteRT's reference kernels, whatever it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from tflite_micro.tensorflow.lite.micro.python import schema_py_generated as schema

from updates.pipeline.calibration import float_interpreter, rows_of
from updates.pipeline.post_pass import operator_name, pack, unpack

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
# 2 MB of rows: more falls out of the processor's cache.
_MOST_VALUES_AT_ONCE = 1 << 18
LINEAR = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
_ACTIVATIONS = {0: (-np.inf, np.inf), 1: (0.0, np.inf), 2: (-1.0, 1.0), 3: (0.0, 6.0)}


@dataclass(frozen=True)
class Layer:
    """A linear operator, the `index`-th of its network. weights: (outputs, k), a row a channel; bias: (outputs,)."""

    index: int
    kind: str
    operator: Any
    weights: Doubles
    bias: Doubles


# What a layer computes with instead of its own: (input (n, ...), weights (outputs, k), bias (outputs,)).
Choose = Callable[[Layer, Floats], tuple[Floats, Doubles, Doubles]]
# Called with a layer and what it gives, (n, ...): what the next operator gets.
After = Callable[[Layer, Floats], Floats]


def matrix(values: Any, shape: Any, kind: str) -> Doubles:
    """Weights as TFLite stores them as (outputs, weights of one output)."""
    exact: Doubles = np.asarray(values, np.float64).reshape(shape)
    if kind == "DEPTHWISE_CONV_2D":
        return np.ascontiguousarray(exact.reshape(-1, int(shape[3])).T)
    return exact.reshape(int(shape[0]), -1)


def flat(weights: npt.NDArray[Any], kind: str) -> npt.NDArray[Any]:
    """The other way round: the values in TFLite's order."""
    return (weights.T if kind == "DEPTHWISE_CONV_2D" else weights).reshape(-1)


class LayeredNetwork:
    """A float TFLite model with one input, one output and constant weights."""

    def __init__(self, model: bytes) -> None:
        self._model = unpack(model)
        self.graph = self._model.subgraphs[0]
        self._alone: dict[int, Any] = {}
        self.layers: dict[int, Layer] = {}
        for at, operator in enumerate(self.graph.operators):
            kind = operator_name(self._model, operator)
            if kind in LINEAR and (weights := self._constant(operator.inputs[1])) is not None:
                shape = self.graph.tensors[int(operator.inputs[1])].shape
                bias = self._constant(operator.inputs[2]) if len(operator.inputs) > 2 else None
                rows = matrix(weights, shape, kind)
                biases = np.zeros(len(rows)) if bias is None else bias.astype(np.float64)
                self.layers[at] = Layer(len(self.layers), kind, operator, rows, biases)

    def _constant(self, index: Any) -> Floats | None:
        if int(index) < 0:
            return None
        data = self._model.buffers[self.graph.tensors[int(index)].buffer].data
        return None if data is None or not len(data) else np.asarray(data, np.uint8).view(np.float32)

    def run(self, inputs: Floats, choose: Choose, after: After | None = None) -> Floats:
        """inputs: (n, ...). What the network decides by, (n, ...): its output, or what a closing SOFTMAX is given."""
        values: dict[int, Floats] = {int(self.graph.inputs[0]): inputs}
        last_use = {int(index): at for at, one in enumerate(self.graph.operators) for index in one.inputs}
        result = inputs
        for at, operator in enumerate(self.graph.operators):
            if at == len(self.graph.operators) - 1 and operator_name(self._model, operator) == "SOFTMAX":
                break
            if at in self.layers:
                layer = self.layers[at]
                taken, weights, bias = choose(layer, values[int(operator.inputs[0])])
                result = self._linear(layer, taken, weights, bias)
                if after is not None:
                    result = after(layer, result)
            else:
                result = self._other(at, values)
            values[int(operator.outputs[0])] = result
            values = {index: kept for index, kept in values.items() if last_use.get(index, -1) > at}
        return result

    def _linear(self, layer: Layer, inputs: Floats, weights: Doubles, bias: Doubles) -> Floats:
        options = layer.operator.builtinOptions
        low, high = _ACTIVATIONS[int(options.fusedActivationFunction)]
        shape = [int(length) for length in self.graph.tensors[int(layer.operator.outputs[0])].shape]
        each = layer.kind == "DEPTHWISE_CONV_2D"
        found = []
        for rows in self.rows(layer, inputs, most=None):
            out = np.matmul(rows, weights[:, :, None])[:, :, 0].T if each else rows[0] @ weights.T
            found.append(np.clip(out + bias, low, high).astype(np.float32))
        return np.concatenate(found).reshape(len(inputs), *shape[1:])

    def rows(self, layer: Layer, inputs: Floats, *, most: int | None) -> Iterator[Doubles]:
        """What meets a layer's weights, (g, rows, k) each, of as many samples at once as the memory has room for."""
        weights = self.graph.tensors[int(layer.operator.inputs[1])].shape
        out = self.graph.tensors[int(layer.operator.outputs[0])].shape
        positions = 1 if layer.kind == "FULLY_CONNECTED" else int(out[1]) * int(out[2])
        taps = 1 if layer.kind == "FULLY_CONNECTED" else int(weights[1]) * int(weights[2])
        values = positions * taps * int(inputs.shape[-1])
        some = max(1, _MOST_VALUES_AT_ONCE // values)
        for start in range(0, len(inputs), some):
            yield rows_of(layer.operator, layer.kind, inputs[start : start + some], self.graph, most)

    def _other(self, at: int, values: dict[int, Floats]) -> Floats:
        interpreter, sources = self._alone_at(at)
        sink = interpreter.get_output_details()[0]["index"]
        places = [detail["index"] for detail in interpreter.get_input_details()]
        found = []
        for sample in range(len(values[sources[0]])):
            for place, source in zip(places, sources, strict=True):
                interpreter.set_tensor(place, values[source][sample][None])
            interpreter.invoke()
            found.append(interpreter.get_tensor(sink)[0].copy())
        return np.stack(found)

    def _alone_at(self, at: int) -> tuple[Any, list[int]]:
        """An interpreter of one operator, and the tensors that it is fed with."""
        if at not in self._alone:
            operator = self.graph.operators[at]
            data = [self._model.buffers[self.graph.tensors[int(i)].buffer].data for i in operator.inputs if i >= 0]
            fed = [
                int(index)
                for index, one in zip((i for i in operator.inputs if i >= 0), data, strict=True)
                if one is None or not len(one)
            ]
            fed = list(dict.fromkeys(fed))
            graph = schema.SubGraphT()
            graph.tensors, graph.operators = self.graph.tensors, [operator]
            graph.inputs, graph.outputs = fed, [int(operator.outputs[0])]
            model = schema.ModelT()
            model.version, model.subgraphs = self._model.version, [graph]
            model.operatorCodes, model.buffers = self._model.operatorCodes, self._model.buffers
            self._alone[at] = (float_interpreter(pack(model)), fed)
        interpreter, fed = self._alone[at]
        return interpreter, fed
