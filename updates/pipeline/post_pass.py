"""From what the quantizer wrote to what a slot holds: the same network, without what TFLM would misread or not need."""

from __future__ import annotations

import struct
from collections import Counter
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
from tflite_micro.tensorflow.lite.micro.python import schema_py_generated as schema

from updates.pipeline.types import HeldClass, Refused, io_hash

# What TFLM runs on integers alone and what firmware registers; the judge then tries the image itself.
ALLOWED_OPERATORS = frozenset(
    """
    ADD AVERAGE_POOL_2D CONCATENATION CONV_2D DEPTHWISE_CONV_2D FULLY_CONNECTED HARD_SWISH LEAKY_RELU LOGISTIC
    MAX_POOL_2D MAXIMUM MEAN MINIMUM MUL PACK PAD PADV2 QUANTIZE RELU RELU6 RESHAPE SLICE SOFTMAX SPLIT SQUEEZE
    STRIDED_SLICE SUB TANH TRANSPOSE TRANSPOSE_CONV
    """.split()  # noqa: SIM905 - one line an operator would hide the rest of this file
)
_OPERATOR_NAMES = {value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}
ALIGNMENTS = (4, 8, 16, 32, 64)


def unpack(model: bytes) -> Any:
    return schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(model, 0))


class _AlignedBuilder(flatbuffers.Builder):  # type: ignore[misc]
    """Python's generated code ignores `force_align`: this puts every vector of bytes on a multiple of `alignment`."""

    def __init__(self, alignment: int) -> None:
        super().__init__(1 << 20)
        self.vector_alignment = alignment

    def StartVector(self, elemSize: int, numElems: int, alignment: int) -> int:
        if elemSize == 1:
            alignment = max(alignment, self.vector_alignment)
        return int(super().StartVector(elemSize, numElems, alignment))


def pack(model: Any, *, alignment: int = 16) -> bytes:
    """alignment: of every buffer's bytes within the file, in bytes; a power of two."""
    builder = _AlignedBuilder(alignment)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def operator_name(model: Any, operator: Any) -> str:
    code = model.operatorCodes[operator.opcodeIndex]
    if code.customCode:
        return str(code.customCode.decode(errors="replace"))
    name: str = _OPERATOR_NAMES[max(code.builtinCode, code.deprecatedBuiltinCode)]
    return name


def operators(data: bytes) -> tuple[str, ...]:
    """The builtin operators that an image uses, sorted."""
    model = unpack(data)
    return tuple(sorted({operator_name(model, operator) for operator in model.subgraphs[0].operators}))


def class_of(data: bytes) -> HeldClass:
    """Precision and granularity of an integer image. Raises ValueError where the bytes are no such image."""
    try:
        model = unpack(data)
        [graph] = model.subgraphs
        source = graph.tensors[int(graph.inputs[0])].type
        weights = [
            (operator_name(model, one), graph.tensors[int(one.inputs[1])])
            for one in graph.operators
            if operator_name(model, one) in ("CONV_2D", "FULLY_CONNECTED")
        ]
    # Flatbuffers carry no checksum: what is cut off or scribbled over may fail anywhere while it is read.
    except (ValueError, IndexError, TypeError, AttributeError, KeyError, struct.error) as error:
        raise ValueError(f"it cannot be read as a .tflite image ({error})") from error
    types = schema.TensorType
    if source not in (types.INT8, types.INT16):
        raise ValueError("its input is neither int8 nor int16")
    four_bits = any(tensor.type == types.INT4 for _, tensor in weights)
    precision = "int4" if four_bits else "int16x8" if source == types.INT16 else "int8"
    scales = [
        tensor.quantization.scale for name, tensor in weights if name == "FULLY_CONNECTED" and tensor.quantization
    ]
    wide = any(one is not None and len(one) > 1 for one in scales)
    return precision, "fc-per-channel" if wide else "fc-per-tensor"


def contract_of(data: bytes, preprocessing: str) -> str:
    """The io_hash of an image that `class_of` can read: what firmware that runs it takes and gives."""
    model = unpack(data)
    graph = model.subgraphs[0]
    ends = [graph.tensors[int(one[0])] for one in (graph.inputs, graph.outputs)]
    (taken, given), types = ends, {value: name.lower() for name, value in vars(schema.TensorType).items()}
    shapes = [tuple(int(length) for length in one.shape) for one in ends]
    return io_hash(shapes[0], types[taken.type], shapes[1], types[given.type], preprocessing)


def fuse_fully_connected_relu(data: bytes) -> bytes:
    """FULLY_CONNECTED then RELU become one operator, as the converter does for convolutions only."""
    model = unpack(data)
    graph = model.subgraphs[0]
    consumers = Counter(int(tensor) for operator in graph.operators for tensor in operator.inputs)
    outputs = {int(tensor) for tensor in graph.outputs}
    by_input = {int(operator.inputs[0]): operator for operator in graph.operators if len(operator.inputs)}
    fused = []
    for operator in graph.operators:
        result = int(operator.outputs[0])
        if operator_name(model, operator) != "FULLY_CONNECTED" or consumers[result] != 1 or result in outputs:
            continue
        follower = by_input.get(result)
        plain = operator.builtinOptions.fusedActivationFunction == schema.ActivationFunctionType.NONE
        if plain and follower is not None and operator_name(model, follower) == "RELU":
            operator.builtinOptions.fusedActivationFunction = schema.ActivationFunctionType.RELU
            operator.outputs = follower.outputs
            fused.append(follower)
    graph.operators = [operator for operator in graph.operators if not any(operator is one for one in fused)]
    _drop_unused_tensors(model)
    return pack(model)


def _drop_unused_tensors(model: Any) -> None:
    """A tensor that nothing reads crashes the calibration with "Tensor data is null"."""
    graph = model.subgraphs[0]
    used = {int(tensor) for tensor in (*graph.inputs, *graph.outputs)}
    for operator in graph.operators:
        used |= {int(tensor) for tensor in (*operator.inputs, *operator.outputs) if tensor >= 0}
    kept = sorted(used)
    moved = {old: new for new, old in enumerate(kept)} | {-1: -1}
    graph.tensors = [graph.tensors[index] for index in kept]
    for owner in (graph, *graph.operators):
        owner.inputs = [moved[int(tensor)] for tensor in owner.inputs]
        owner.outputs = [moved[int(tensor)] for tensor in owner.outputs]
    for signature in model.signatureDefs or []:
        for entry in (*signature.inputs, *signature.outputs):
            entry.tensorIndex = moved[int(entry.tensorIndex)]


def inline_buffers(model: Any, data: bytes) -> None:
    """Weights that lie outside the flatbuffer come inside: TFLM ignores the offset and computes garbage in silence."""
    for buffer in model.buffers:
        if buffer.offset and buffer.offset > 1:
            buffer.data = np.frombuffer(data, np.uint8, count=buffer.size, offset=buffer.offset)
            buffer.offset = buffer.size = 0


def strip(model: Any) -> None:
    """Names, observed ranges, signatures and metadata: 16 % of a keyword spotter's file, nothing to TFLM."""
    model.description = model.signatureDefs = model.metadata = model.metadataBuffer = None
    for graph in model.subgraphs:
        graph.name = None
        for tensor in graph.tensors:
            tensor.name = None
            if tensor.quantization is not None:
                tensor.quantization.min = tensor.quantization.max = None
    used = [0, *sorted({tensor.buffer for graph in model.subgraphs for tensor in graph.tensors} - {0})]
    moved = {old: new for new, old in enumerate(used)}
    model.buffers = [model.buffers[index] for index in used]
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            tensor.buffer = moved[tensor.buffer]


def _culprits_first(model: Any) -> list[Any]:
    """A DEQUANTIZE only surrounds an operator that stayed in floating point: name that one, it is what must go."""
    return sorted(model.subgraphs[0].operators, key=lambda one: operator_name(model, one) in ("DEQUANTIZE", "QUANTIZE"))


def check_operators(data: bytes, *, stage: str, allowed: frozenset[str] = ALLOWED_OPERATORS) -> None:
    """Raises Refused (of the given stage) naming an operator that is off the list."""
    model = unpack(data)
    if len(model.subgraphs) != 1:
        raise Refused(
            stage=stage,
            code="control_flow",
            field="onnx",
            message=f"it has {len(model.subgraphs)} subgraphs",
            fix="export it without branches and loops",
        )
    for operator in _culprits_first(model):
        name = operator_name(model, operator)
        if name not in allowed:
            raise Refused(
                stage=stage,
                code="unsupported_operator",
                field=name,
                message="this operator is not among those that the nodes run on int8",
                fix=f"replace it; allowed are {', '.join(sorted(allowed))}",
            )


def check_integer(data: bytes) -> None:
    """Raises Refused (stage post_pass) naming an operator that would compute in floating point."""
    model = unpack(data)
    tensors = model.subgraphs[0].tensors
    for operator in _culprits_first(model):
        for index in (*operator.inputs, *operator.outputs):
            if index >= 0 and tensors[index].type in (schema.TensorType.FLOAT32, schema.TensorType.FLOAT16):
                raise Refused(
                    stage="post_pass",
                    code="not_integer",
                    field=operator_name(model, operator),
                    message="the quantizer leaves this operator in floating point",
                    fix="replace it by operators that quantize to int8",
                )


def post_pass(data: bytes, *, alignment: int) -> bytes:
    """The slot's bytes, each buffer on `alignment` bytes (32 and 64 are cache lines). Raises Refused."""
    if alignment not in ALIGNMENTS:
        raise Refused(
            stage="post_pass",
            code="unsupported_alignment",
            field="targets.alignment",
            message=f"{alignment} bytes cannot be reached",
            fix=f"use one of {', '.join(map(str, ALIGNMENTS))}",
        )
    check_integer(data)
    check_operators(data, stage="post_pass")
    model = unpack(data)
    inline_buffers(model, data)
    strip(model)
    aligned = pack(model, alignment=max(16, alignment))
    _check_result(aligned, alignment)
    return aligned


def misaligned_buffers(data: bytes, alignment: int) -> list[int]:
    """Indices of the buffers whose bytes do not begin on a multiple of `alignment` within the file."""
    model = schema.Model.GetRootAsModel(data, 0)
    found = []
    for index in range(model.BuffersLength()):
        buffer = model.Buffers(index)
        if buffer.DataLength():
            field = flatbuffers.number_types.UOffsetTFlags.py_type(buffer._tab.Offset(4))
            if buffer._tab.Vector(field) % alignment:
                found.append(index)
    return found


def _check_result(data: bytes, alignment: int) -> None:
    outside = [index for index, buffer in enumerate(unpack(data).buffers) if buffer.offset and buffer.offset > 1]
    if outside or misaligned_buffers(data, alignment):
        raise Refused(
            stage="post_pass",
            code="layout",
            field="image",
            message=f"weights lie outside the flatbuffer ({outside}) or off {alignment} bytes",
            fix="report this with the model attached",
        )


def stage(directory: Path, arguments: dict[str, Any]) -> dict[str, Any]:
    """Child: quantized.tflite -> image.tflite."""
    data = (directory / "quantized.tflite").read_bytes()
    image = post_pass(data, alignment=arguments["alignment"])
    (directory / "image.tflite").write_bytes(image)
    return {"operators": operators(image)}
