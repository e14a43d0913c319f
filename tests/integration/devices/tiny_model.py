"""A quantized network of one layer, small enough to send in a test and real enough to run in TFLM."""

from __future__ import annotations

import random

import flatbuffers
import numpy as np
from tflite_micro.tensorflow.lite.micro.python import schema_py_generated as schema

INPUTS, OUTPUTS = 64, 48


def tiny_model(seed: int) -> bytes:
    """A .tflite of about 4 KB: int8 fully connected, 64 inputs, 48 outputs."""
    weights = np.frombuffer(random.Random(seed).randbytes(INPUTS * OUTPUTS), np.int8)
    model = schema.ModelT()
    model.version, model.description = 3, f"tiny {seed}"
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.FULLY_CONNECTED
    code.version = 4
    model.operatorCodes = [code]
    empty, held = schema.BufferT(), schema.BufferT()
    held.data = weights
    model.buffers = [empty, held]
    layer = schema.OperatorT()
    layer.inputs, layer.outputs = np.array([0, 1, -1], np.int32), np.array([2], np.int32)
    layer.builtinOptionsType = schema.BuiltinOptions.FullyConnectedOptions
    layer.builtinOptions = schema.FullyConnectedOptionsT()
    graph = schema.SubGraphT()
    graph.tensors = [_tensor((1, INPUTS), 0), _tensor((OUTPUTS, INPUTS), 1), _tensor((1, OUTPUTS), 0)]
    graph.operators, graph.inputs, graph.outputs = [layer], np.array([0], np.int32), np.array([2], np.int32)
    model.subgraphs = [graph]
    builder = flatbuffers.Builder(8192)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _tensor(shape: tuple[int, ...], buffer: int) -> schema.TensorT:
    tensor = schema.TensorT()
    tensor.shape, tensor.type, tensor.buffer = np.array(shape, np.int32), schema.TensorType.INT8, buffer
    tensor.name = f"tensor {shape}"
    tensor.quantization = schema.QuantizationParametersT()
    tensor.quantization.scale, tensor.quantization.zeroPoint = np.array([0.05], np.float32), np.array([0], np.int64)
    return tensor
