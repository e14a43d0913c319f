"""Patches of images chosen near the deployed one, against what other patchers make of the plainly quantized version.

For each of four networks that `_fine_tunes.py` trains, wholly fine-tuned: the smallest patch, by the node's own codec, of an
image that TFLM measures within 1 point of accuracy (the autoencoder: within 3 % of mean squared error) of the fp32 model, on
samples that the rounding never saw. The peer is the smallest of ten microcontroller-decodable patches of the plainly
quantized version, with its own scales or with the deployed ones. N is how many networks to take (all four).
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from devices.agent.patch_codec import Profile
from tests.benchmarks._fine_tunes import NAMES, fine_tune
from tests.benchmarks._patch_peers import absent, microcontroller_peers
from tests.benchmarks._slot_images import build_image
from updates.patches.weight_patch import encode_patch
from updates.pipeline import child, judge
from updates.pipeline.convert import fp32_outputs
from updates.pipeline.deployed_rounding import STRENGTHS, CurvePoint, Metric, Rounded, chosen, curve, finer, metric_of
from updates.pipeline.integer_image import IntegerImage
from updates.pipeline.layerwise import LayeredNetwork
from updates.pipeline.post_pass import fuse_fully_connected_relu

LIMITS = {"ad": (">=", 12.0), "resnet8": (">=", 8.0), "mobilenet": (">=", 25.0), "kws": (">=", 5.0)}
_CALIBRATION, _EVALUATION = 1024, 2000
_ARENA = 1 << 20


@dataclass(frozen=True)
class Row:
    """Bytes; metrics of the deployed image, the plain one and the chosen one."""

    name: str
    plain: int
    peer: tuple[str, int]
    deployed: Metric
    quantized: Metric
    points: tuple[CurvePoint, ...]
    best: CurvePoint


def run(n: int | None = None) -> dict[str, float]:
    if absent():
        print(f"not installed: {', '.join(absent())} (pip install -r requirements-bench.txt)", file=sys.stderr)
        return {}
    figures = {}
    for name in NAMES[: n or None]:
        with tempfile.TemporaryDirectory() as scratch:
            row = _measure(name, Path(scratch))
        print(_table(row), flush=True)
        figures[name] = row.peer[1] / row.best.patch_bytes
        figures[f"{name}_over_our_plain_patch"] = row.plain / row.best.patch_bytes
    return figures


def _measure(name: str, scratch: Path) -> Row:
    tuned = fine_tune(name)
    for version, onnx in (("first", tuned.first), ("second", tuned.second)):
        calibration, _ = tuned.data(_CALIBRATION, seed=777, drifted=version == "second")
        layout = build_image(scratch / version, onnx, calibration)
    base = (scratch / "first/image.tflite").read_bytes()
    place = scratch / "second"
    (place / "base.tflite").write_bytes(base)
    plain = (place / "image.tflite").read_bytes()
    inputs, labels = tuned.data(_EVALUATION, seed=4242, drifted=True)
    moved = np.ascontiguousarray(inputs.transpose(0, *(1 + axis for axis in layout["input_order"])))
    baseline = fp32_outputs((place / "checked.onnx").read_bytes(), inputs)

    def measure(image: bytes) -> Metric:
        return metric_of(judge.quantized_outputs(image, _ARENA, moved), baseline, labels)

    def patch_bytes(image: bytes) -> int:
        return len(encode_patch(base, image, profile=Profile.L).data)

    def rounded(*strengths: float) -> list[Rounded]:
        found = child.run(
            "against",
            "updates.pipeline.deployed_rounding:stage",
            place,
            layout | {"strengths": strengths, "activations": ["base"]},
            time_limit_s=1800,
        )["rounded"]
        return [Rounded(one["strength"], one["activations"], (place / one["file"]).read_bytes()) for one in found]

    points = curve(rounded(*STRENGTHS), patch_bytes=patch_bytes, measure=measure)
    near = chosen(points)
    if near is None:
        raise RuntimeError(f"{name}: no image within the limit")
    points += curve(rounded(*finer(near.rounded.strength, STRENGTHS)), patch_bytes=patch_bytes, measure=measure)
    best = chosen(points)
    assert best is not None
    frozen = _nearest_at_deployed_scales((place / "float.tflite").read_bytes(), base)
    peer = min(
        ((peer, size(base, image)) for image in (plain, frozen) for peer, size in microcontroller_peers().items()),
        key=lambda one: one[1],
    )
    ordered = tuple(sorted(points, key=lambda point: point.rounded.strength))
    return Row(name, patch_bytes(plain), peer, measure(base), measure(plain), ordered, best)


def _nearest_at_deployed_scales(float_model: bytes, base: bytes) -> bytes:
    """What a quantizer gives that keeps the scales and rounds each value to nearest: often the smaller plain patch."""
    image = IntegerImage(base)
    for layer in LayeredNetwork(fuse_fully_connected_relu(float_model)).layers.values():
        deployed = image.linear(layer.index)
        weights = np.rint(layer.weights / deployed.scale[:, None]).clip(-deployed.limit, deployed.limit)
        bias = None if deployed.bias is None else np.rint(layer.bias / deployed.bias_scale)
        image.write(layer.index, weights, bias, deployed.scale, deployed.bias_scale)
    return bytes(image.data)


def _table(row: Row) -> str:
    lines = [
        f"\n{row.name}: {row.quantized.name}, fp32 {row.quantized.reference:.4f}, deployed image {row.deployed.value:.4f}",
        f"  plainly quantized {row.quantized.value:.4f}: best peer {row.peer[1]} bytes ({row.peer[0]}), our patch {row.plain}",
        f"{'strength':>12}{'patch bytes':>13}{'metric':>9}{'loss':>9}",
    ]
    for point in row.points:
        mark = " chosen" if point is row.best else "" if point.within_limit else " beyond the limit"
        lines.append(
            f"{point.rounded.strength:>12.3g}{point.patch_bytes:>13}{point.metric.value:>9.4f}"
            f"{point.metric.loss:>9.4f}{mark}"
        )
    return "\n".join(lines)
