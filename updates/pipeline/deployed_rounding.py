"""Images of a new version near the image that most nodes hold, and the curve of patch bytes against the metric.

Weights, scales and biases are chosen together with what they cost on the radio (see `rate_rounding`), layer by layer, each
layer knowing what the ones before it became. Nothing here knows a codec: the caller hands in what a patch weighs.

    near = Deployed(float_model, image, base, inputs)               # once a version, in a child: seconds to a minute
    rounded = [near.rounded(strength) for strength in STRENGTHS]    # each an exact image, the same bytes every time
    points = curve(rounded, patch_bytes=..., measure=..., limit=...)
    point = chosen(points)                                          # the smallest patch within the limit, or None

`stage` does the first two lines for `child.run`: float.tflite, image.tflite, base.tflite and calibration.npy of the
directory give near-<i>.tflite, and JSON `{"rounded": [{"strength", "activations", "file"}]}`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from updates.pipeline import post_pass
from updates.pipeline.calibration import ROWS_PER_SAMPLE
from updates.pipeline.integer_image import IntegerImage, check_same_graph
from updates.pipeline.layerwise import Layer, LayeredNetwork
from updates.pipeline.rate_rounding import Fed, towards
from updates.pipeline.types import Refused

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Scales = Literal["base", "new"]

# 1: a bit a weight is worth a hundredth of the output's power.
STRENGTHS = (0.25, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0)
# New activation scales move every bias of their layers: half as many points show whether they are worth that.
_STRENGTHS_AT = {"base": STRENGTHS, "new": STRENGTHS[::2]}
# What a layer loses the next ones partly make good: each of the next three is taken to leave so much of it.
_LEFT_BY_A_LAYER, _LAYERS_THAT_REGAIN = 0.7, 3
_POWER_A_BIT = 0.01
_MOST_SAMPLES, _MOST_ACTIVATION_BYTES = 1024, 256 << 20
_PROBES, _PROBE_NOISE = 16, 0.01
# An input scale that grew by so much clips at the deployed one.
_OUTGROWN = 1.1


@dataclass(frozen=True)
class Rounded:
    """An image for the new version. strength: how dear a bit was. activations: whose scales its activations have."""

    strength: float
    activations: Scales
    image: bytes


@dataclass(frozen=True)
class Metric:
    """What an image is judged by. loss is what the limit is held against, 0 where the image is as good as `reference`:
    for "accuracy" the drop as a fraction of 1, for "error" the relative growth."""

    name: Literal["accuracy", "error"]
    reference: float
    value: float

    @property
    def loss(self) -> float:
        if self.name == "accuracy":
            return self.reference - self.value
        return self.value / self.reference - 1 if self.reference > 0 else (0.0 if self.value <= 0 else np.inf)


@dataclass(frozen=True)
class Limit:
    """The most that the owner gives for a smaller patch: a point of accuracy, or 3 % of error."""

    accuracy_drop: float = 0.01
    error_growth: float = 0.03

    def keeps(self, metric: Metric) -> bool:
        # Half a sample's worth of float noise is no loss.
        return metric.loss <= (self.accuracy_drop if metric.name == "accuracy" else self.error_growth) + 1e-9


@dataclass(frozen=True)
class CurvePoint:
    rounded: Rounded
    patch_bytes: int
    metric: Metric
    within_limit: bool


def curve(
    rounded: Iterable[Rounded],
    *,
    patch_bytes: Callable[[bytes], int],
    measure: Callable[[bytes], Metric],
    limit: Limit | None = None,
) -> tuple[CurvePoint, ...]:
    """One point an image, smallest patch first. patch_bytes(image): of the patch from the base; measure(image): on
    evaluation data, by running exactly these bytes."""
    kept = limit or Limit()
    points = []
    for one in {one.image: one for one in rounded}.values():
        metric = measure(one.image)
        points.append(CurvePoint(one, patch_bytes(one.image), metric, kept.keeps(metric)))
    return tuple(sorted(points, key=lambda point: (point.patch_bytes, point.metric.loss)))


def chosen(points: Sequence[CurvePoint]) -> CurvePoint | None:
    """The smallest patch within the limit."""
    return min((point for point in points if point.within_limit), key=lambda point: point.patch_bytes, default=None)


def finer(strength: float, strengths: Iterable[float]) -> tuple[float, ...]:
    """Three even steps from the chosen strength to the next of those tried: what is smaller still and within the limit
    lies there. None where nothing stronger was tried."""
    above = min((one for one in strengths if one > strength), default=strength)
    return tuple(strength * (above / strength) ** (step / 4) for step in (1, 2, 3)) if above > strength > 0 else ()


def metric_of(outputs: Floats, baseline: Floats, labels: npt.NDArray[Any] | None) -> Metric:
    """outputs: of the image on the evaluation inputs, (n, ...); baseline: of the fp32 model. labels: classes (n,) for
    accuracy; float targets of the outputs' shape for their mean squared error; without, the error is against the
    baseline, as a share of its power above 1 (so that the limit's 3 % are 3 % of the power)."""
    if labels is not None and np.issubdtype(labels.dtype, np.integer):
        right = [np.mean(one.reshape(len(one), -1).argmax(1) == labels.reshape(-1)) for one in (baseline, outputs)]
        return Metric("accuracy", float(right[0]), float(right[1]))
    if labels is not None:
        wanted = labels.reshape(outputs.shape).astype(np.float64)
        return Metric("error", *(float(np.mean((one - wanted) ** 2)) for one in (baseline, outputs)))
    power = float(np.mean(baseline.astype(np.float64) ** 2))
    return Metric("error", 1.0, 1.0 + float(np.mean((outputs.astype(np.float64) - baseline) ** 2)) / max(power, 1e-30))


class Deployed:
    """A new version beside a deployed image of the same graph.

    float_model: the new version's float TFLite, whose FULLY_CONNECTED and RELU may be apart. image: what it was plainly
    quantized to, base: the deployed image; both as they lie in a slot. inputs: calibration inputs (n, ...) in the
    image's layout. Raises Refused (stage against) where the graphs differ: then only the plain patch can go.
    """

    def __init__(self, float_model: bytes, image: bytes, base: bytes, inputs: Floats) -> None:
        self._network = LayeredNetwork(post_pass.fuse_fully_connected_relu(float_model))
        self._image, self._base = IntegerImage(image), IntegerImage(base)
        check_same_graph(self._image, self._base)
        self._check_float_model()
        self._fed: dict[int, Floats] = {}
        self._inputs = inputs[:: -(-len(inputs) // min(len(inputs), self._affordable(inputs)))]
        self._spread: list[float] = []  # of the probing noise, by layer
        self._outputs = self._network.run(self._inputs, self._observed, self._spread_of)
        self._power = float(np.mean(self._outputs.astype(np.float64) ** 2))
        self._weights = sum(layer.weights.size for layer in self._network.layers.values())
        self._worth = [
            self._sensitivity(index) * _LEFT_BY_A_LAYER ** min(_LAYERS_THAT_REGAIN, len(self._spread) - 1 - index)
            for index in range(len(self._spread))
        ]

    @property
    def activations(self) -> tuple[Scales, ...]:
        """Whose scales are worth trying: the deployed ones, and new ones where the new version's values outgrew those."""
        grown = [self._image.input_scale(index) / self._base.input_scale(index) for index in range(len(self._image))]
        return ("base", "new") if max(grown, default=0.0) > _OUTGROWN else ("base",)

    def rounded(self, strength: float, activations: Scales = "base") -> Rounded:
        """strength: 0 (rounded for accuracy alone), 0.1 (hardly noticed) to 100 (little changes)."""
        made = IntegerImage(bytes(self._base.data))
        made.take_constants(self._image)
        if activations == "new":
            made.take_outgrown_activations(self._image, _OUTGROWN)
        bit = strength * _POWER_A_BIT * self._power / self._weights

        def choose(layer: Layer, inputs: Floats) -> tuple[Floats, Doubles, Doubles]:
            taken = made.as_taken(layer.index, inputs)
            return taken, *self._choose(layer, taken, made, bit)

        self._network.run(self._inputs, choose)
        return Rounded(strength, activations, bytes(made.data))

    def _choose(self, layer: Layer, taken: Floats, made: IntegerImage, bit: float) -> tuple[Doubles, Doubles]:
        """Chooses a layer's integers, writes them into `made` and gives them back as floats."""
        old = self._base.linear(layer.index)
        step = made.input_scale(layer.index)
        scale = old.scale
        wanted, deployed = layer.weights / scale[:, None], old.weights
        if old.bias is not None:
            moved = np.rint(old.bias * (old.bias_scale / (scale * step)))
            wanted = np.column_stack([wanted, layer.bias / (scale * step)])
            deployed = np.column_stack([deployed, moved])
        fed = self._moments(layer, taken, None if old.bias is None else step)
        price = bit / (self._worth[layer.index] / len(scale) * scale**2)
        found = towards(wanted, deployed, fed, price, limit=old.limit, bias=old.bias is not None)
        weights = found[:, : layer.weights.shape[1]]
        bias = None if old.bias is None else found[:, -1]
        made.write(layer.index, weights, bias, scale, scale * step)
        return weights * scale[:, None], np.zeros(len(scale)) if bias is None else bias * scale * step

    def _check_float_model(self) -> None:
        shapes = [layer.weights.shape for layer in self._network.layers.values()]
        if shapes != [self._image.linear(index).weights.shape for index in range(len(self._image))]:
            raise Refused(
                stage="against",
                code="other_graph",
                field="onnx",
                message="its linear layers are not those of the image",
                fix="report this with the model attached",
            )

    def _affordable(self, inputs: Floats) -> int:
        each = sum(
            4 * int(np.prod([int(length) for length in self._network.graph.tensors[int(one.operator.inputs[0])].shape]))
            for one in self._network.layers.values()
        )
        return max(1, min(_MOST_SAMPLES, _MOST_ACTIVATION_BYTES // max(1, each)))

    def _observed(self, layer: Layer, inputs: Floats) -> tuple[Floats, Doubles, Doubles]:
        self._fed[layer.index] = inputs
        return inputs, layer.weights, layer.bias

    def _spread_of(self, layer: Layer, out: Floats) -> Floats:
        self._spread.append(float(np.sqrt(_PROBE_NOISE * np.var(out))) or 1e-6)
        return out

    def _sensitivity(self, noisy: int) -> float:
        """How much of the variance of noise at a layer's output arrives at the network's output."""
        random = np.random.default_rng(noisy)

        def disturb(layer: Layer, out: Floats) -> Floats:
            if layer.index != noisy:
                return out
            return out + random.normal(0, self._spread[noisy], out.shape).astype(np.float32)

        out = self._network.run(
            self._inputs[:_PROBES], lambda layer, inputs: (inputs, layer.weights, layer.bias), disturb
        )
        arrived = np.mean((out - self._outputs[:_PROBES].astype(np.float64)) ** 2)
        return max(float(arrived) / self._spread[noisy] ** 2, 1e-9)

    def _moments(self, layer: Layer, taken: Floats, step: float | None) -> Fed:
        """step: the bias's constant input, or None without a bias."""
        second: Any = 0.0
        lost: Any = 0.0
        count = 0
        exact = self._network.rows(layer, self._fed[layer.index], most=ROWS_PER_SAMPLE)
        for z, x in zip(self._network.rows(layer, taken, most=ROWS_PER_SAMPLE), exact, strict=True):
            if step is not None:
                constant = np.full((*z.shape[:2], 1), step)
                z, x = np.concatenate([z, constant], axis=2), np.concatenate([x, constant], axis=2)
            second = second + z.transpose(0, 2, 1) @ z
            lost = lost + (x - z).transpose(0, 2, 1) @ z
            count += z.shape[1]
        return Fed(second / count, lost / count, count)


def stage(directory: Path, arguments: dict[str, Any]) -> dict[str, Any]:
    """Child: see the top. arguments: input_order, and `strengths` and `activations` where the defaults will not do."""
    inputs = np.load(directory / "calibration.npy")
    moved = np.ascontiguousarray(inputs.transpose(0, *(1 + axis for axis in arguments["input_order"])))
    network, image, base = ((directory / f"{name}.tflite").read_bytes() for name in ("float", "image", "base"))
    near = Deployed(network, image, base, moved)
    found: list[dict[str, Any]] = []
    for activations in arguments.get("activations", near.activations):
        for strength in arguments.get("strengths", _STRENGTHS_AT[activations]):
            one = near.rounded(strength, activations)
            file = f"near-{len(found)}.tflite"
            (directory / file).write_bytes(one.image)
            found.append({"strength": one.strength, "activations": one.activations, "file": file})
    return {"rounded": found}
