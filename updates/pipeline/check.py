"""First stage: is this ONNX a model that a microcontroller could run at all? Finds out before anything is converted."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import numpy_helper, shape_inference

from updates.pipeline import arrays, fake_quantization
from updates.pipeline.types import MAXIMUM_ONNX_BYTES, Refused
from updates.pipeline.validate import check_labels

# How long these run, or how large their result is, depends on the data: neither memory nor time has a bound.
DATA_DEPENDENT = frozenset(
    """
    If Loop Scan NonZero Unique NonMaxSuppression Compress SequenceMap StringSplit SequenceAt SequenceErase
    SequenceInsert SplitToSequence ConcatFromSequence OptionalGetElement RegexFullMatch
    """.split()  # noqa: SIM905 - one line an operator would hide the rest of this file
)
# The same input gives another output: no self-test and no comparison with the baseline can hold.
RANDOM = frozenset(
    ("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli")
)
# Bounded only where these inputs are constants.
BOUNDED_BY_INPUT = {
    "TopK": (1,),
    "Range": (0, 1, 2),
    "Expand": (1,),
    "Tile": (1,),
    "ConstantOfShape": (0,),
    "OneHot": (1,),
    "Reshape": (1,),
    "Slice": (1, 2, 3, 4),
    "Pad": (1, 3),
    "Split": (1,),
    "Resize": (2, 3),
    "Upsample": (1,),
    "Squeeze": (1,),
    "Unsqueeze": (1,),
    "CenterCropPad": (1,),
    "MaxUnpool": (2,),
}
# Shapes are fixed here, so what is computed from a shape is as good as a constant.
_OF_SHAPES = ("Shape", "Size")
_STANDARD_DOMAINS = ("", "ai.onnx")
MAXIMUM_ELEMENTS = 64 * 1024 * 1024


def _refuse(code: str, field: str, message: str, fix: str) -> Refused:
    return Refused(stage="check", code=code, field=field, message=message, fix=fix)


def check_size(data: bytes) -> None:
    """Raises Refused if the upload is too large to look at."""
    if len(data) > MAXIMUM_ONNX_BYTES:
        raise _refuse(
            "too_large",
            "onnx",
            f"{len(data)} bytes exceed the limit of {MAXIMUM_ONNX_BYTES}",
            "upload a model for microcontrollers",
        )


def check(data: bytes) -> tuple[bytes, dict[str, Any]]:
    """Returns the model with static shapes (a free batch dimension becomes 1) and its facts.

    facts: input_name, input_shape (batch 1 first), output_name, output_shape, operators (sorted ONNX types), trained
    (ranges and scales of quantization-aware training, as JSON).
    Raises Refused (stage check) naming the operator, tensor or dimension.
    """
    check_size(data)
    model = _parse(data)
    graph = model.graph
    for tensor in graph.initializer:
        _check_initializer(tensor)
    _check_nodes(model)
    trained = fake_quantization.strip(model)
    constants = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in constants]
    if len(inputs) != 1 or len(graph.output) != 1:
        raise _refuse(
            "inputs_outputs",
            "graph",
            f"it has {len(inputs)} inputs and {len(graph.output)} outputs, one of each is supported",
            "export the model with one input and one output",
        )
    _fix_batch(inputs[0])
    _fix_batch(graph.output[0])
    if inputs[0].type.tensor_type.elem_type != onnx.TensorProto.FLOAT:
        raise _refuse(
            "input_type", inputs[0].name, "the input is not float32", "export the model in float32, before quantization"
        )
    del graph.value_info[:]  # exported with another batch size, these would contradict
    try:
        onnx.checker.check_model(model, full_check=True)
        inferred = shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    except (onnx.checker.ValidationError, shape_inference.InferenceError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        raise _refuse(
            "invalid_model",
            "onnx",
            f"the ONNX checker refuses it: {first}",
            "export it again and run onnx.checker.check_model",
        ) from error
    _check_static(inferred)
    facts = {
        "input_name": inputs[0].name,
        "input_shape": _shape(inputs[0]),
        "output_name": graph.output[0].name,
        "output_shape": _shape(inferred.graph.output[0]),
        "operators": sorted({node.op_type for node in graph.node}),
        "trained": asdict(trained),
    }
    return inferred.SerializeToString(deterministic=True), facts


def _parse(data: bytes) -> onnx.ModelProto:
    try:
        model = onnx.load_model_from_string(data)
    except DecodeError as error:
        raise _refuse(
            "not_onnx",
            "onnx",
            f"it is not ONNX, or it is cut off ({error})",
            "upload the .onnx file that the exporter wrote",
        ) from error
    if not model.graph.node or not model.ir_version:
        raise _refuse(
            "not_onnx",
            "onnx",
            "it holds no ONNX graph, or it is cut off",
            "upload the .onnx file that the exporter wrote",
        )
    return model


def _check_initializer(tensor: onnx.TensorProto) -> None:
    if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
        raise _refuse("external_data", tensor.name, "its values are in another file", "save the model as one file")
    elements = 1
    for size in tensor.dims:
        elements *= size
    if elements > MAXIMUM_ELEMENTS or min(tensor.dims, default=0) < 0:
        raise _refuse(
            "too_large",
            tensor.name,
            f"it declares {elements} values, the limit is {MAXIMUM_ELEMENTS}",
            "upload a model for microcontrollers",
        )
    try:
        values = numpy_helper.to_array(tensor)
    except (ValueError, TypeError, KeyError) as error:
        raise _refuse(
            "invalid_weights",
            tensor.name,
            f"its values do not match its shape {list(tensor.dims)}",
            "export the model again",
        ) from error
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise _refuse(
            "not_finite",
            tensor.name,
            "these weights hold NaN or infinite values",
            "check the training, then export again",
        )


def _check_nodes(model: onnx.ModelProto) -> None:
    for function in model.functions:
        raise _refuse(
            "local_function", function.name, "it is a function of the model's own", "export with functions inlined"
        )
    dependent = _check_graph(model.graph, {tensor.name for tensor in model.graph.initializer}, path="")
    if dependent:
        others = f" ({len(dependent) - 1} more: {', '.join(dependent[1:6])})" if len(dependent) > 1 else ""
        raise _refuse(
            "data_dependent_operator",
            dependent[0],
            f"its cost or the size of its result depends on the data{others}",
            "replace it by an operator of fixed size",
        )


def _check_graph(graph: onnx.GraphProto, constants: set[str], path: str) -> list[str]:
    """Names the data-dependent operators, outer before inner. A graph within an operator sees the constants outside."""
    constants = constants | {tensor.name for tensor in graph.initializer}
    found = []
    for node in graph.node:
        named = f"{path}{node.op_type} ({node.name or next(iter(node.output), '')})"
        if node.domain not in _STANDARD_DOMAINS:
            raise _refuse(
                "unsupported_operator",
                named,
                f"the operator is of domain {node.domain!r}, not standard ONNX",
                "use standard operators",
            )
        if node.op_type in RANDOM:
            raise _refuse("random_operator", named, "its result is drawn at random", "export the model for inference")
        bounds = [node.input[index] for index in BOUNDED_BY_INPUT.get(node.op_type, ()) if index < len(node.input)]
        if node.op_type in DATA_DEPENDENT or any(name and name not in constants for name in bounds):
            found.append(named)
        elif node.op_type in _OF_SHAPES or all(name in constants for name in node.input if name):
            constants |= set(node.output)
        for attribute in node.attribute:
            if attribute.HasField("t"):
                _check_initializer(attribute.t)
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                for tensor in inner.initializer:
                    _check_initializer(tensor)
                found += _check_graph(inner, constants, path=f"{named} > ")
    return found


def _fix_batch(value: onnx.ValueInfoProto) -> None:
    """Only the first dimension may be free, and becomes 1: the nodes look at one window at a time."""
    dimensions = value.type.tensor_type.shape.dim
    for index, dimension in enumerate(dimensions):
        if dimension.HasField("dim_value") and dimension.dim_value > 0:
            if index == 0 and dimension.dim_value != 1 and len(dimensions) > 1:
                raise _refuse(
                    "batch_size",
                    value.name,
                    f"its batch dimension is {dimension.dim_value}",
                    "export with batch 1 or a free batch",
                )
            continue
        if index == 0:
            dimension.dim_value = 1
            continue
        named = dimension.dim_param or "unnamed"
        raise _refuse(
            "dynamic_shape",
            value.name,
            f"dimension {index} ({named}) has no fixed size",
            "export with fixed sizes; only the batch may be free",
        )


def _check_static(model: onnx.ModelProto) -> None:
    for value in (*model.graph.value_info, *model.graph.output):
        for index, dimension in enumerate(value.type.tensor_type.shape.dim):
            if not dimension.HasField("dim_value"):
                raise _refuse(
                    "dynamic_shape",
                    value.name,
                    f"dimension {index} has no fixed size",
                    "export with fixed sizes; only the batch may be free",
                )


def _shape(value: onnx.ValueInfoProto) -> list[int]:
    return [dimension.dim_value for dimension in value.type.tensor_type.shape.dim]


def stage(directory: Path, arguments: dict[str, Any]) -> dict[str, Any]:
    """Child: model.onnx -> checked.onnx; calibration.npz and evaluation.npz -> plain .npy files that the others map."""
    checked, facts = check((directory / "model.onnx").read_bytes())
    (directory / "checked.onnx").write_bytes(checked)
    (directory / "trained.json").write_text(json.dumps(facts.pop("trained")))
    facts["slices"] = []
    for field in ("calibration", "evaluation"):
        read = arrays.read_npz((directory / f"{field}.npz").read_bytes(), field=field)
        for index, part in enumerate(arrays.slices_of(read, input_shape=tuple(facts["input_shape"]), field=field)):
            if field == "calibration":
                np.save(directory / "calibration.npy", part.inputs)
                break  # further slices of the calibration file are not for calibrating
            # Now, and not after minutes of work on a network that the labels do not suit.
            check_labels(
                part.name,
                part.labels,
                outputs=math.prod(facts["output_shape"]),
                inputs=part.inputs[0].size,
                task=arguments.get("task"),
            )
            np.save(directory / f"inputs-{index}.npy", part.inputs)
            if part.labels is not None:
                np.save(directory / f"labels-{index}.npy", part.labels)
            facts["slices"].append({"name": part.name, "labels": part.labels is not None})
    return facts
