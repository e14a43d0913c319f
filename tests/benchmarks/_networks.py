"""Four networks of MLPerf Tiny's sizes in numpy, small enough to train in seconds, and the training itself.

Inputs are smaller than the originals' (weights do not depend on the picture's size). Layouts of weights are TensorFlow
Lite's: convolutions O x (H W I), depthwise (H W) x C, dense O x I.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

Array = np.ndarray[tuple[int, ...], np.dtype[np.float32]]


@dataclass(eq=False)
class Node:
    """A value and how its gradient goes on to what it was made of."""

    value: Array
    back: Callable[[Array], None] | None = None
    grad: Array | None = None

    def add(self, grad: Array) -> None:
        self.grad = grad if self.grad is None else self.grad + grad


@dataclass(eq=False)
class Unit:
    """A linear layer, batch normalization (but for the last layer) and ReLU. `size`, `stride`: of the window."""

    sort: str  # conv, depthwise, dense
    inputs: int
    outputs: int
    size: tuple[int, int] = (1, 1)
    stride: int = 1
    relu: bool = True
    norm: bool = True
    weight: Node = field(init=False)
    gain: Node = field(init=False)
    offset: Node = field(init=False)
    mean: Array = field(init=False)
    variance: Array = field(init=False)
    peak: float = 0.0  # largest magnitude of the input seen

    def start(self, random: np.random.Generator) -> None:
        rows, columns = self.outputs, self.inputs * self.size[0] * self.size[1]
        if self.sort == "depthwise":
            rows, columns = self.size[0] * self.size[1], self.outputs
        spread = np.sqrt(2 / (rows if self.sort == "depthwise" else columns))
        self.weight = Node(random.normal(0, spread, (rows, columns)).astype(np.float32))
        self.gain = Node(np.ones(self.outputs, np.float32))
        self.offset = Node(np.zeros(self.outputs, np.float32))
        self.mean, self.variance = np.zeros(self.outputs, np.float32), np.ones(self.outputs, np.float32)

    def folded(self) -> tuple[Array, Array]:
        """Weights and biases without the normalization."""
        if not self.norm:
            return self.weight.value, self.offset.value
        factor = self.gain.value / np.sqrt(self.variance + 1e-3)
        weight = self.weight.value * (factor if self.sort == "depthwise" else factor[:, None])
        return weight, self.offset.value - self.mean * factor


Network = list[Unit]
Forward = Callable[[Network, "Tape", Node], Node]


class Tape:
    """Runs layers and remembers them for the way back. `statistics`: batch normalization by the batch, and learned."""

    def __init__(self, statistics: bool) -> None:
        self._statistics = statistics
        self._nodes: list[Node] = []

    def _made(self, value: Array, back: Callable[[Array], None]) -> Node:
        self._nodes.append(Node(value, back))
        return self._nodes[-1]

    def backward(self, last: Node, grad: Array) -> None:
        last.grad = grad
        for node in reversed(self._nodes):
            if node.grad is not None and node.back is not None:
                node.back(node.grad)

    def unit(self, unit: Unit, x: Node) -> Node:
        unit.peak = max(unit.peak, float(np.abs(x.value).max()))
        linear = {"conv": self._conv, "depthwise": self._depthwise, "dense": self._dense}[unit.sort]
        y = linear(unit, x)
        y = self._norm(unit, y) if unit.norm else self._bias(unit, y)
        return self.relu(y) if unit.relu else y

    def relu(self, x: Node) -> Node:
        on = x.value > 0
        return self._made(x.value * on, lambda grad: x.add(grad * on))

    def plus(self, a: Node, b: Node) -> Node:
        def back(grad: Array) -> None:
            a.add(grad)
            b.add(grad)

        return self._made(a.value + b.value, back)

    def average(self, x: Node) -> Node:
        area = x.value.shape[1] * x.value.shape[2]

        def back(grad: Array) -> None:
            x.add(np.broadcast_to(grad[:, None, None, :] / area, x.value.shape).astype(np.float32))

        return self._made(x.value.mean((1, 2)), back)

    def _dense(self, unit: Unit, x: Node) -> Node:
        def back(grad: Array) -> None:
            unit.weight.add(grad.T @ x.value)
            x.add(grad @ unit.weight.value)

        return self._made(x.value @ unit.weight.value.T, back)

    def _conv(self, unit: Unit, x: Node) -> Node:
        n, height, width, channels = x.value.shape
        taps = list(_taps(unit, height, width))
        padded = _padded(unit, x.value)
        columns = np.concatenate([padded[:, rows, cols] for rows, cols in taps], axis=3)
        out = columns.shape[1:3]
        flat = columns.reshape(-1, columns.shape[3])

        def back(grad: Array) -> None:
            rows_of_grad = grad.reshape(-1, unit.outputs)
            unit.weight.add(rows_of_grad.T @ flat)
            spread = (rows_of_grad @ unit.weight.value).reshape(n, *out, -1)
            whole = np.zeros_like(padded)
            for index, (rows, cols) in enumerate(taps):
                whole[:, rows, cols] += spread[..., index * channels : (index + 1) * channels]
            x.add(_cropped(unit, whole, height, width))

        return self._made((flat @ unit.weight.value.T).reshape(n, *out, unit.outputs), back)

    def _depthwise(self, unit: Unit, x: Node) -> Node:
        _, height, width, _ = x.value.shape
        taps = list(_taps(unit, height, width))
        padded = _padded(unit, x.value)
        total = sum(padded[:, rows, cols] * unit.weight.value[i] for i, (rows, cols) in enumerate(taps))

        def back(grad: Array) -> None:
            unit.weight.add(np.stack([(padded[:, rows, cols] * grad).sum((0, 1, 2)) for rows, cols in taps]))
            whole = np.zeros_like(padded)
            for index, (rows, cols) in enumerate(taps):
                whole[:, rows, cols] += grad * unit.weight.value[index]
            x.add(_cropped(unit, whole, height, width))

        return self._made(np.asarray(total, np.float32), back)

    def _bias(self, unit: Unit, x: Node) -> Node:
        def back(grad: Array) -> None:
            unit.offset.add(grad.sum(tuple(range(grad.ndim - 1))))
            x.add(grad)

        return self._made(x.value + unit.offset.value, back)

    def _norm(self, unit: Unit, x: Node) -> Node:
        axes = tuple(range(x.value.ndim - 1))
        mean, variance = unit.mean, unit.variance
        if self._statistics:
            mean, variance = x.value.mean(axes), x.value.var(axes)
            unit.mean = 0.9 * unit.mean + 0.1 * mean
            unit.variance = 0.9 * unit.variance + 0.1 * variance
        inverse = 1 / np.sqrt(variance + 1e-3)
        shaped = (x.value - mean) * inverse

        def back(grad: Array) -> None:
            unit.gain.add((grad * shaped).sum(axes))
            unit.offset.add(grad.sum(axes))
            inner = grad * unit.gain.value
            if self._statistics:
                inner = inner - inner.mean(axes) - shaped * (inner * shaped).mean(axes)
            x.add(inner * inverse)

        return self._made(shaped * unit.gain.value + unit.offset.value, back)


def _padded(unit: Unit, x: Array) -> Array:
    tall, wide = unit.size[0] // 2, unit.size[1] // 2
    return np.pad(x, ((0, 0), (tall, tall), (wide, wide), (0, 0)))


def _cropped(unit: Unit, x: Array, height: int, width: int) -> Array:
    tall, wide = unit.size[0] // 2, unit.size[1] // 2
    return x[:, tall : tall + height, wide : wide + width]


def _taps(unit: Unit, height: int, width: int) -> Iterator[tuple[slice, slice]]:
    tall, wide = unit.size[0] // 2, unit.size[1] // 2
    rows = (height + 2 * tall - unit.size[0]) // unit.stride + 1
    columns = (width + 2 * wide - unit.size[1]) // unit.stride + 1
    for top in range(unit.size[0]):
        for left in range(unit.size[1]):
            down, right = top + unit.stride * (rows - 1) + 1, left + unit.stride * (columns - 1) + 1
            yield slice(top, down, unit.stride), slice(left, right, unit.stride)


def anomaly_detector() -> tuple[Network, Forward]:
    widths = [640, 128, 128, 128, 128, 8, 128, 128, 128, 128, 640]
    units = [Unit("dense", a, b) for a, b in pairwise(widths)]
    units[-1].relu = units[-1].norm = False
    return units, _chain


def keyword_spotter(classes: int = 12) -> tuple[Network, Forward]:
    units = [Unit("conv", 1, 64, (10, 4), 2)]
    for _ in range(4):
        units += [Unit("depthwise", 64, 64, (3, 3)), Unit("conv", 64, 64)]
    return [*units, _head(64, classes)], _chain


def image_classifier() -> tuple[Network, Forward]:
    units = [Unit("conv", 3, 16, (3, 3)), Unit("conv", 16, 16, (3, 3)), Unit("conv", 16, 16, (3, 3), relu=False)]
    for a, b in ((16, 32), (32, 64)):
        units += [Unit("conv", a, b, (3, 3), 2), Unit("conv", b, b, (3, 3), relu=False)]
        units.append(Unit("conv", a, b, (1, 1), 2, relu=False, norm=False))
    return [*units, _head(64, 10)], _residual


def wake_word_camera() -> tuple[Network, Forward]:
    units, channels = [Unit("conv", 3, 8, (3, 3), 2)], 8
    for outputs, stride in zip(
        (16, 32, 32, 64, 64, *[128] * 6, 256, 256), (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1), strict=True
    ):
        units += [Unit("depthwise", channels, channels, (3, 3), stride), Unit("conv", channels, outputs)]
        channels = outputs
    return [*units, _head(256, 2)], _chain


def _head(inputs: int, outputs: int) -> Unit:
    return Unit("dense", inputs, outputs, relu=False, norm=False)


def _chain(units: Network, tape: Tape, x: Node) -> Node:
    for unit in units:
        if unit.sort == "dense" and x.value.ndim == 4:
            x = tape.average(x)
        x = tape.unit(unit, x)
    return x


def _residual(units: Network, tape: Tape, x: Node) -> Node:
    x = tape.unit(units[0], x)
    x = tape.relu(tape.plus(x, tape.unit(units[2], tape.unit(units[1], x))))
    for first in (3, 6):
        inner = tape.unit(units[first + 1], tape.unit(units[first], x))
        x = tape.relu(tape.plus(inner, tape.unit(units[first + 2], x)))
    return tape.unit(units[9], tape.average(x))


def train(
    units: Network,
    forward: Forward,
    batches: Iterator[tuple[Array, np.ndarray | None]],
    *,
    steps: int,
    rate: float,
    learned: Sequence[Node],
    adam: bool = True,
    statistics: bool = True,
) -> None:
    """Adam or SGD with momentum, the rate falling to 0 as a cosine. Without labels the input is the target."""
    first = [np.zeros_like(node.value) for node in learned]
    second = [np.zeros_like(node.value) for node in learned]
    for step in range(steps):
        x, labels = next(batches)
        for unit in units:
            unit.weight.grad = unit.gain.grad = unit.offset.grad = None
        tape = Tape(statistics)
        out = forward(units, tape, Node(x))
        tape.backward(out, _loss_gradient(out.value, x if labels is None else labels))
        pace = rate * 0.5 * (1 + np.cos(np.pi * step / steps))
        for index, node in enumerate(learned):
            if node.grad is None:
                continue
            if adam:
                first[index] = 0.9 * first[index] + 0.1 * node.grad
                second[index] = 0.999 * second[index] + 0.001 * node.grad**2
                swing = np.sqrt(second[index] / (1 - 0.999 ** (step + 1))) + 1e-8
                node.value = (node.value - pace * first[index] / (1 - 0.9 ** (step + 1)) / swing).astype(np.float32)
            else:
                first[index] = 0.9 * first[index] + node.grad
                node.value = (node.value - pace * first[index]).astype(np.float32)


def _loss_gradient(out: Array, wanted: np.ndarray) -> Array:
    if wanted.ndim == out.ndim:
        return ((out - wanted) * np.float32(2 / out.size)).astype(np.float32)
    chances = np.exp(out - out.max(1, keepdims=True))
    chances /= chances.sum(1, keepdims=True)
    chances[np.arange(len(out)), wanted] -= 1
    return (chances / len(out)).astype(np.float32)
