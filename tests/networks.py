"""Six kinds of small network as ONNX, with inputs that suit them: seeded weights, made here, no file needed."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Network:
    """`shape`: of one input without batch. `classes` is None where the output is no decision."""

    name: str
    onnx: bytes
    shape: tuple[int, ...]
    classes: int | None

    def inputs(self, n: int, *, seed: int) -> Floats:
        return smooth(n, self.shape, seed=seed)


def smooth(n: int, shape: Sequence[int], *, seed: int) -> Floats:
    """Noise as sensors see it: neighbours resemble each other, and samples differ in level and loudness."""
    random = np.random.default_rng(seed)
    values = random.normal(size=(n, *shape))
    for axis in range(1, values.ndim):
        values = (np.roll(values, 1, axis) + values + np.roll(values, -1, axis)) / 3
    spread = values.std(axis=tuple(range(1, values.ndim)), keepdims=True)
    ones = (1,) * len(shape)
    loudness, level = random.uniform(0.4, 1.2, (n, *ones)), random.normal(size=(n, *ones)) * 0.3
    return (values / spread * loudness + level).astype(np.float32)


def npz(**arrays: npt.NDArray[np.generic]) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
    return file.getvalue()


class Builder:
    """Adds one operator after another; `here` is the name of the last result."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, npt.NDArray[np.generic]] = {}
        self.here = "x"

    def add(
        self, kind: str, *constants: npt.NDArray[np.generic], source: str | None = None, **attributes: object
    ) -> str:
        name = f"{kind.lower()}_{len(self.nodes)}"
        inputs = [source or self.here]
        for index, value in enumerate(constants):
            self.weights[f"{name}_{index}"] = value
            inputs.append(f"{name}_{index}")
        self.nodes.append(helper.make_node(kind, inputs, [name], name, **attributes))
        self.here = name
        return name

    def normal(self, *shape: int, fan_in: int) -> Floats:
        return (self.random.normal(size=shape) * np.sqrt(2 / fan_in)).astype(np.float32)

    def bias(self, size: int) -> Floats:
        return (self.random.normal(size=size) * 0.1).astype(np.float32)

    def convolve(
        self, channels: int, into: int, *, kernel: Sequence[int] = (3, 3), stride: int = 1, group: int = 1
    ) -> str:
        fan_in = channels // group * int(np.prod(kernel))
        padding = [size // 2 for size in kernel]
        return self.add(
            "Conv",
            self.normal(into, channels // group, *kernel, fan_in=fan_in),
            self.bias(into),
            kernel_shape=list(kernel),
            pads=[*padding, *padding],
            strides=[stride] * len(kernel),
            group=group,
        )

    def clip(self) -> str:
        return self.add("Clip", np.float32(0), np.float32(6))  # type: ignore[arg-type]

    def dense(self, size: int, into: int) -> str:
        return self.add("Gemm", self.normal(size, into, fan_in=size), self.bias(into))

    def join(self, other: str) -> str:
        name = f"add_{len(self.nodes)}"
        self.nodes.append(helper.make_node("Add", [self.here, other], [name], name))
        self.here = name
        return name

    def finish(self, name: str, shape: tuple[int, ...], output: int, *, decides: bool) -> Network:
        self.nodes[-1].output[0] = "y"
        graph = helper.make_graph(
            self.nodes,
            name,
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, *shape])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, output])],
            [numpy_helper.from_array(np.asarray(value), key) for key, value in self.weights.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        return Network(name, model.SerializeToString(), shape, output if decides else None)


def fc_autoencoder(seed: int = 1) -> Network:
    """The shape of the MLPerf Tiny anomaly detector: 264 k weights."""
    build, sizes = Builder(seed), (640, 128, 128, 128, 128, 8, 128, 128, 128, 128, 640)
    for size, into in itertools.pairwise(sizes):
        build.dense(size, into)
        if into != 640:
            build.add("Relu")
    return build.finish("fc-autoencoder", (640,), 640, decides=False)


def ds_cnn(seed: int = 2) -> Network:
    build = Builder(seed)
    build.convolve(1, 32, kernel=(5, 3), stride=2)
    build.add("Relu")
    for _ in range(3):
        build.convolve(32, 32, group=32)
        build.add("Relu")
        build.convolve(32, 32, kernel=(1, 1))
        build.add("Relu")
    return _decide(build, 32, "ds-cnn", (1, 49, 10), 12)


def residual_cnn(seed: int = 3) -> Network:
    build = Builder(seed)
    build.convolve(3, 16)
    build.add("Relu")
    channels = 16
    for into in (16, 32, 64):
        stride = into // channels
        entry = build.here
        build.convolve(channels, into, stride=stride)
        build.add("Relu")
        inner = build.convolve(into, into)
        build.here = entry
        if stride > 1:
            build.convolve(channels, into, kernel=(1, 1), stride=stride)
        build.join(inner)
        build.add("Relu")
        channels = into
    return _decide(build, 64, "residual-cnn", (3, 16, 16), 10)


def cnn_1d(seed: int = 4) -> Network:
    build = Builder(seed)
    for channels, into in ((3, 16), (16, 32), (32, 32)):
        build.convolve(channels, into, kernel=(5,), stride=2)
        build.add("Relu")
    return _decide(build, 32, "cnn-1d", (3, 128), 5)


def mobilenet(seed: int = 5) -> Network:
    """Inverted residuals with ReLU6, as in MobileNetV2."""
    build = Builder(seed)
    build.convolve(3, 8, stride=2)
    build.clip()
    channels = 8
    for into, stride in ((8, 1), (16, 2), (16, 1), (32, 2), (32, 1)):
        entry, wide = build.here, channels * 4
        build.convolve(channels, wide, kernel=(1, 1))
        build.clip()
        build.convolve(wide, wide, stride=stride, group=wide)
        build.clip()
        build.convolve(wide, into, kernel=(1, 1))
        if stride == 1 and into == channels:
            build.join(entry)
        channels = into
    return _decide(build, 32, "mobilenet", (3, 32, 32), 2)


def recurrent(seed: int = 6) -> Network:
    """An LSTM over 16 steps: a state from step to step, which TFLM's integer kernels here do not keep."""
    build, hidden, features = Builder(seed), 12, 8
    build.add("Transpose", perm=[1, 0, 2])
    source = build.here
    build.weights |= {
        "lstm_w": build.normal(1, 4 * hidden, features, fan_in=features),
        "lstm_r": build.normal(1, 4 * hidden, hidden, fan_in=hidden),
    }
    node = helper.make_node("LSTM", [source, "lstm_w", "lstm_r"], ["", "state"], "remember", hidden_size=hidden)
    build.nodes.append(node)
    build.here = "state"
    build.add("Squeeze", np.array([0], np.int64))
    build.dense(hidden, 4)
    return build.finish("recurrent", (16, features), 4, decides=True)


def _decide(build: Builder, channels: int, name: str, shape: tuple[int, ...], classes: int) -> Network:
    build.add("GlobalAveragePool")
    build.add("Flatten")
    build.dense(channels, classes)
    build.add("Softmax", axis=1)
    return build.finish(name, shape, classes, decides=True)


KINDS: tuple[Callable[[], Network], ...] = (fc_autoencoder, ds_cnn, residual_cnn, cnn_1d, mobilenet, recurrent)
