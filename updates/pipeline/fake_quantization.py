"""Quantization-aware training leaves QuantizeLinear/DequantizeLinear pairs in the ONNX: taken out, their scales kept.

The converter alone would leave float convolutions between them and say nothing. Activations become plain float tensors
whose trained ranges go to the quantizer; weights become floats on the trained grid, which rounding reproduces.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper
from tflite_micro.tensorflow.lite.micro.python import schema_py_generated as schema

from updates.pipeline.calibration import float_interpreter
from updates.pipeline.convert import baseline
from updates.pipeline.post_pass import unpack
from updates.pipeline.types import Refused

QUANTIZE, DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"
_INTEGER_OPERATORS = ("QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger", "DynamicQuantizeLinear")

_LIMITS = {
    "int4": (-8, 7),
    "uint4": (0, 15),
    "int8": (-128, 127),
    "uint8": (0, 255),
    "int16": (-32768, 32767),
    "uint16": (0, 65535),
}


@dataclass(frozen=True)
class Trained:
    """`ranges`: smallest and largest value that training's grid holds, by the name of the float tensor that was put on
    it. `scales`: of the constants that came off a grid, by name: one, or one an output channel."""

    ranges: dict[str, tuple[float, float]]
    scales: dict[str, tuple[float, ...]]


def strip(model: onnx.ModelProto) -> Trained:
    """Changes `model` in place: no QuantizeLinear or DequantizeLinear is left. Raises Refused (stage check)."""
    graph = model.graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    constants |= _constant_nodes(graph)
    made_by = {name: node for node in graph.node for name in node.output}
    ranges: dict[str, tuple[float, float]] = {}
    renamed: dict[str, str] = {}
    new_weights: dict[str, npt.NDArray[np.float32]] = {}
    for node in graph.node:
        if node.op_type in _INTEGER_OPERATORS:
            raise _refuse(node, "the model is already in integers", "export it with QuantizeLinear/DequantizeLinear")
        if node.op_type != DEQUANTIZE:
            continue
        stored = constants.get(node.input[0])
        pair = made_by.get(node.input[0])
        if stored is not None:
            new_weights[node.output[0]] = _dequantized(node, stored, constants)
        elif pair is not None and pair.op_type == QUANTIZE:
            _check_pair(pair, node, constants)
            source = pair.input[0]
            if source in constants:
                levels = _quantized(pair, constants[source].astype(np.float32), constants)
                new_weights[node.output[0]] = _dequantized(node, levels, constants)
            else:
                ranges[renamed.get(source, source)] = _range(node, pair, constants)
                renamed[node.output[0]] = renamed.get(source, source)
        else:
            raise _refuse(node, "its input comes from no QuantizeLinear and is no constant", "export QDQ in pairs")
    if not ranges and not new_weights:
        return Trained({}, {})
    scales = {
        node.output[0]: tuple(float(value) for value in _parameters(node, constants)[0].reshape(-1))
        for node in graph.node
        if node.op_type == DEQUANTIZE and node.output[0] in new_weights
    }
    moved = _rewire(graph, renamed, new_weights)
    return Trained({moved.get(name, name): pair for name, pair in ranges.items()}, scales)


def tensors_of_the_image(
    onnx_model: bytes, tflite_model: bytes, inputs: npt.NDArray[np.float32], order: tuple[int, ...], trained: Trained
) -> dict[str, list[tuple[float, float]]]:
    """Trained ranges by the names of the converted model's tensors: one pair a tensor, or one an output channel.

    The converter renames and reorders, so tensors are known again by their values on `inputs` (n, ...), which are in
    the ONNX model's layout. A tensor that the converter fused away has no entry: its range is observed instead.
    """
    found: dict[str, list[tuple[float, float]]] = {}
    unpacked = unpack(tflite_model)
    graph = unpacked.subgraphs[0]
    for tensor in graph.tensors:
        data = unpacked.buffers[tensor.buffer].data
        if data is None or not len(data) or tensor.type != schema.TensorType.FLOAT32:
            continue
        values = np.sort(np.asarray(data).view(np.float32))
        for name, scales in trained.scales.items():
            original = _initializer(onnx_model, name)
            if original.size == values.size and np.array_equal(np.sort(original.reshape(-1)), values):
                found[tensor.name.decode()] = [(-127 * scale, 127 * scale) for scale in scales]
                break
    if not trained.ranges:
        return found
    wanted = _intermediate(onnx_model, sorted(trained.ranges), inputs)
    interpreter = float_interpreter(tflite_model)
    moved = np.ascontiguousarray(inputs.transpose(0, *(1 + axis for axis in order)))
    seen: dict[int, list[npt.NDArray[np.float32]]] = {}
    computed = sorted({int(graph.inputs[0])} | {int(index) for one in graph.operators for index in one.outputs})
    for sample in moved:
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], sample[None])
        interpreter.invoke()
        for index in computed:
            seen.setdefault(index, []).append(np.sort(interpreter.get_tensor(index).reshape(-1)))
    for name, values in wanted.items():
        for index in computed:
            actual = np.stack(seen[index])
            if actual.shape == values.shape and np.allclose(actual, values, rtol=1e-4, atol=1e-5):
                found[graph.tensors[index].name.decode()] = [trained.ranges[name]]
    return found


def _initializer(onnx_model: bytes, name: str) -> npt.NDArray[Any]:
    graph = onnx.load_model_from_string(onnx_model).graph
    return next((numpy_helper.to_array(one) for one in graph.initializer if one.name == name), np.empty(0))


def _intermediate(
    onnx_model: bytes, names: list[str], inputs: npt.NDArray[np.float32]
) -> dict[str, npt.NDArray[np.float32]]:
    """Sorted values of these tensors, (n, values), by name."""
    model = onnx.load_model_from_string(onnx_model)
    input_name = model.graph.input[0].name
    known = {value.name for value in model.graph.output} | {input_name}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in known)
    session = baseline(model.SerializeToString())
    computed = [name for name in names if name != input_name]
    rows: dict[str, list[npt.NDArray[np.float32]]] = {name: [] for name in names}
    for sample in inputs:
        results = session.run(computed, {input_name: sample[None]}) if computed else []
        for name, value in [*zip(computed, results, strict=True), (input_name, sample)]:
            if name in rows:
                rows[name].append(np.sort(value.reshape(-1)))
    return {name: np.stack(values) for name, values in rows.items()}


def _rewire(
    graph: onnx.GraphProto, renamed: dict[str, str], new_weights: dict[str, npt.NDArray[np.float32]]
) -> dict[str, str]:
    """Returns what was renamed: the graph's output keeps its name, its maker now writes it and everyone reads it there."""
    moved = {renamed[value.name]: value.name for value in graph.output if value.name in renamed}
    kept = [node for node in graph.node if node.op_type not in (QUANTIZE, DEQUANTIZE)]
    for node in kept:
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                source = renamed.get(name, name)
                names[index] = moved.get(source, source)
    del graph.node[:]
    graph.node.extend(kept)
    used = {name for node in kept for name in node.input}
    left = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(left)
    graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in new_weights.items())
    del graph.value_info[:]
    return moved


def _constant_nodes(graph: onnx.GraphProto) -> dict[str, npt.NDArray[Any]]:
    return {
        node.output[0]: numpy_helper.to_array(attribute.t)
        for node in graph.node
        if node.op_type == "Constant"
        for attribute in node.attribute
        if attribute.name == "value"
    }


def _parameters(
    node: onnx.NodeProto, constants: dict[str, npt.NDArray[Any]]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[Any]]:
    scale = constants.get(node.input[1])
    zero = constants.get(node.input[2]) if len(node.input) > 2 and node.input[2] else np.uint8(0)
    if scale is None or zero is None:
        raise _refuse(node, "its scale or zero point is computed, not a constant", "export with fixed scales")
    scale = np.asarray(scale, np.float32)
    if not np.isfinite(scale).all() or (scale <= 0).any():
        raise _refuse(node, f"its scale is {scale.min():g}", "export with finite scales above 0")
    return scale, np.asarray(zero)


def _axis(node: onnx.NodeProto) -> int:
    return next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 1)


def _along(node: onnx.NodeProto, values: npt.NDArray[Any], rank: int) -> npt.NDArray[Any]:
    """A scale a channel, shaped to multiply with a tensor of that rank."""
    if values.ndim == 0 or values.size == 1:
        return values.reshape(())
    shape = [1] * rank
    shape[_axis(node) % rank] = values.size
    return values.reshape(shape)


def _dequantized(
    node: onnx.NodeProto, levels: npt.NDArray[Any], constants: dict[str, npt.NDArray[Any]]
) -> npt.NDArray[np.float32]:
    scale, zero = (_along(node, one, levels.ndim) for one in _parameters(node, constants))
    values: npt.NDArray[np.float32] = ((levels.astype(np.float64) - zero.astype(np.float64)) * scale).astype(np.float32)
    return values


def _quantized(
    node: onnx.NodeProto, values: npt.NDArray[np.float32], constants: dict[str, npt.NDArray[Any]]
) -> npt.NDArray[Any]:
    scale, zero = (_along(node, one, values.ndim) for one in _parameters(node, constants))
    levels: npt.NDArray[Any] = np.clip(np.rint(values / scale) + zero.astype(np.float64), *_limits(node, zero))
    return levels


def _range(node: onnx.NodeProto, pair: onnx.NodeProto, constants: dict[str, npt.NDArray[Any]]) -> tuple[float, float]:
    scale, zero = _parameters(node, constants)
    if scale.size != 1:
        raise _refuse(pair, "an activation has a scale a channel", "train with one scale an activation")
    low, high = _limits(pair, zero)
    step, offset = float(scale.reshape(-1)[0]), int(zero.reshape(-1)[0])
    return (low - offset) * step, (high - offset) * step


def _limits(node: onnx.NodeProto, zero: npt.NDArray[Any]) -> tuple[int, int]:
    limits = _LIMITS.get(zero.dtype.name)
    if limits is None:
        raise _refuse(node, f"its grid is of type {zero.dtype.name}", f"use one of {', '.join(sorted(_LIMITS))}")
    return limits


def _check_pair(first: onnx.NodeProto, second: onnx.NodeProto, constants: dict[str, npt.NDArray[Any]]) -> None:
    for one, other in zip(_parameters(first, constants), _parameters(second, constants), strict=True):
        if not np.array_equal(one, other):
            raise _refuse(second, "its scale or zero point differs from its QuantizeLinear's", "export QDQ in pairs")


def _refuse(node: onnx.NodeProto, message: str, fix: str) -> Refused:
    named = f"{node.op_type} ({node.name or node.output[0]})"
    return Refused(stage="check", code="fake_quantization", field=named, message=message, fix=fix)
