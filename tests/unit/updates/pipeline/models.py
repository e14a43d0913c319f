"""Small ONNX models and array files, built by hand: fast, and each with exactly the flaw that a test wants."""

from __future__ import annotations

import io

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from updates.pipeline.types import BuildRequest, Profile, ValidationLimits

SHAPE = (3, 8, 10)
CLASSES = 4


def npz(**arrays: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def model(nodes, initializers, *, input_shape=(1, *SHAPE), output_shape=(1, CLASSES)) -> bytes:
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(input_shape))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, list(output_shape))],
        [numpy_helper.from_array(value, name) for name, value in initializers.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return made.SerializeToString()


def convolution_weights(seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {
        "cw": random.normal(size=(8, 3, 3, 3)).astype(np.float32) * 0.3,
        "cb": random.normal(size=8).astype(np.float32) * 0.1,
        "fw": random.normal(size=(8, 16)).astype(np.float32) * 0.5,
        "fb": random.normal(size=16).astype(np.float32) * 0.1,
        "gw": random.normal(size=(16, CLASSES)).astype(np.float32) * 0.5,
        "gb": np.zeros(CLASSES, np.float32),
    }


def convolution_nodes() -> list[onnx.NodeProto]:
    return [
        helper.make_node("Conv", ["x", "cw", "cb"], ["c"], "convolve"),
        helper.make_node("Relu", ["c"], ["r"], "rectify"),
        helper.make_node("GlobalAveragePool", ["r"], ["p"], "pool"),
        helper.make_node("Flatten", ["p"], ["f"], "flatten"),
        helper.make_node("Gemm", ["f", "fw", "fb"], ["h"], "hidden"),
        helper.make_node("Relu", ["h"], ["hr"], "rectify_hidden"),
        helper.make_node("Gemm", ["hr", "gw", "gb"], ["y"], "decide"),
    ]


def convolution_model(seed: int = 0, **shapes) -> bytes:
    """Conv, ReLU, pool, two fully connected layers: NCHW (1, 3, 8, 10) to 4 classes."""
    return model(convolution_nodes(), convolution_weights(seed), **shapes)


def samples(n: int, seed: int = 1) -> np.ndarray:
    random = np.random.default_rng(seed)
    level = random.normal(size=(n, 3, 1, 1)) * 2
    return (random.normal(size=(n, *SHAPE)) + level).astype(np.float32)


def request(onnx_bytes: bytes, *, n: int = 120, labels: np.ndarray | None = None, **more) -> BuildRequest:
    inputs = samples(n, seed=3)
    evaluation = {"inputs": inputs} if labels is None else {"inputs": inputs, "labels": labels}
    return BuildRequest(
        onnx=onnx_bytes,
        **{
            # With 32 samples these inputs clip: 13 dB, 24 with 128, 32 with 512.
            "calibration": npz(inputs=samples(256)),
            "evaluation": npz(**evaluation),
            "profiles": (Profile("roomy"), Profile("tight", sram_bytes=4096, reserved_sram_bytes=2048)),
            "limits": ValidationLimits(minimum_class_samples=0),
            **more,
        },
    )
