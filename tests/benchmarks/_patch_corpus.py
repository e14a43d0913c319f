"""Pairs of int8 weight images as a fleet would update them, made from scratch: `python -m tests.benchmarks._patch_corpus`.

Four networks of MLPerf Tiny's sizes learn synthetic classes, then are changed in the ways that updates change networks,
on data that has drifted. Each is quantized with its old scales (frozen) and with new ones (recal): int8 weights per
channel, int32 biases, float32 scales, 16-byte aligned, behind a head and a table of layers.
"""

from __future__ import annotations

import copy
import hashlib
import json
import pickle
import struct
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.benchmarks import _networks as networks
from tests.benchmarks._networks import Array, Forward, Network, Node
from updates.patches.layout import Layout, Tensor

CACHE = Path(__file__).parents[2] / "var/patch-corpus"
_FIRST_STEPS = 160


@dataclass(frozen=True)
class Pair:
    """`kind`: how the network was changed. `name` is network_kind_scales."""

    name: str
    kind: str
    old: bytes
    new: bytes
    old_layout: Layout
    new_layout: Layout


@dataclass(frozen=True)
class _Quantized:
    sort: str
    weight: np.ndarray  # int8
    bias: np.ndarray  # int32
    scale: np.ndarray  # float32, one a channel
    input_scale: float


def corpus(only: str | None = None) -> list[Pair]:
    """All pairs, or those of one network; trained once and kept under var/. Takes some minutes the first time."""
    sources = Path(__file__).read_bytes() + Path(networks.__file__).read_bytes()
    pairs: list[Pair] = []
    for name in _NETWORKS:
        if only not in (None, name):
            continue
        kept = CACHE / f"{name}-{hashlib.sha256(sources).hexdigest()[:16]}.pickle"
        if not kept.exists():
            began = time.monotonic()
            made = list(_pairs(name))
            CACHE.mkdir(parents=True, exist_ok=True)
            scratch = kept.with_suffix(".new")
            scratch.write_bytes(pickle.dumps(made))
            scratch.replace(kept)
            print(f"{name}: {len(made)} pairs made in {time.monotonic() - began:.0f} s", file=sys.stderr)
        pairs += pickle.loads(kept.read_bytes())  # noqa: S301  # this program wrote it
    return pairs


def _pictures(height: int, width: int, channels: int, classes: int) -> Array:
    """One smooth picture a class."""
    random = np.random.default_rng(77)
    coarse = random.normal(0, 1, (classes, 4, 4, channels))
    rows, columns = np.linspace(0, 3, height), np.linspace(0, 3, width)
    tall = np.maximum(0, 1 - np.abs(rows[:, None] - np.arange(4)))
    wide = np.maximum(0, 1 - np.abs(columns[:, None] - np.arange(4)))
    return np.asarray(np.einsum("ha,wb,nabc->nhwc", tall, wide, coarse), np.float32)


def _batches(name: str, seed: int, drift: bool, classes: int = 12) -> Iterator[tuple[Array, np.ndarray | None]]:
    random = np.random.default_rng(seed)
    if name == "ad":
        mixing = np.random.default_rng(78).normal(0, 1, (12, 640)).astype(np.float32)
        while True:
            hidden = random.normal(0.4 if drift else 0, 1, (64, 12)) ** 2
            noise = random.normal(0, 0.3 if drift else 0.2, (64, 640))
            yield (np.tanh(hidden @ mixing * 0.3) + noise).astype(np.float32), None
    height, width, channels, classes, size = {
        "kws": (25, 10, 1, classes, 32),
        "resnet8": (16, 16, 3, 10, 24),
        "mobilenet": (32, 32, 3, 2, 24),
    }[name]
    pictures = _pictures(height, width, channels, 16)
    while True:
        labels = random.integers(0, classes, size)
        gain = random.uniform(0.7, 1.3, (size, 1, 1, 1)) * (1.15 if drift else 1)
        noise = random.normal(0, 1.1 if drift else 0.8, (size, height, width, channels))
        x = pictures[labels] * gain + noise + (0.3 if drift else 0)
        yield np.roll(x, random.integers(-2, 3), axis=1).astype(np.float32), labels


_NETWORKS = {
    "ad": (networks.anomaly_detector, 1e-3),
    "kws": (networks.keyword_spotter, 2e-3),
    "resnet8": (networks.image_classifier, 2e-3),
    "mobilenet": (networks.wake_word_camera, 2e-3),
}


def _mixed(name: str, seed: int, classes: int = 12) -> Iterator[tuple[Array, np.ndarray | None]]:
    """Half old data and half drifted, as one fine-tunes without forgetting."""
    old, new = _batches(name, seed, False, classes), _batches(name, seed + 1, True, classes)
    while True:
        (a, labels_a), (b, labels_b) = next(old), next(new)
        half = len(a) // 2
        labels = None if labels_a is None or labels_b is None else np.concatenate([labels_a[:half], labels_b[half:]])
        yield np.concatenate([a[:half], b[half:]]), labels


def _pairs(name: str) -> Iterator[Pair]:
    make, rate = _NETWORKS[name]
    first, forward = make()
    _start(first, 1)
    networks.train(first, forward, _batches(name, 1, False), steps=_FIRST_STEPS, rate=rate, learned=_all(first))
    old = _quantize(first, _input_scales(name, first, forward, False), None)
    old_image, old_layout = _pack(old)

    def pair(kind: str, scales: str, new: list[_Quantized]) -> Pair:
        image, layout = _pack(new)
        return Pair(f"{name}_{kind}_{scales}", kind, old_image, image, old_layout, layout)

    def both(kind: str, units: Network) -> Iterator[Pair]:
        peaks = _input_scales(name, units, forward, True)
        yield pair(kind, "frozen", _quantize(units, peaks, old))
        yield pair(kind, "recal", _quantize(units, peaks, None))

    def changed(
        steps: int, factor: float, sort: str = "all", adam: bool = True, statistics: bool = True, seed: int = 2
    ) -> Network:
        units = copy.deepcopy(first)
        learned = {
            "all": _all(units),
            "head": [units[-1].weight, units[-1].offset],
            "bias": [unit.offset for unit in units],
            "bn": [node for unit in units if unit.norm for node in (unit.gain, unit.offset)],
        }[sort]
        networks.train(
            units, forward, _mixed(name, seed), steps=steps, rate=rate * factor, learned=learned, adam=adam,
            statistics=statistics,
        )  # fmt: skip
        return units

    yield from both("head", changed(40, 0.3, "head", statistics=False, seed=3))
    yield from both("bias", changed(24, 0.2, "bias", statistics=False, seed=4))
    yield from both("bn", changed(24, 0.1, "bn", seed=5))
    yield from both("sgd", changed(40, 0.25, adam=False, statistics=False))
    yield from both("light", changed(24, 0.02))
    heavy = changed(48, 0.1)
    yield from both("heavy", heavy)
    dense = _quantize(changed(40, 0.1, statistics=False, seed=6), [layer.input_scale for layer in old], old)
    for percent in (1, 5):
        yield pair(f"sparse{percent}", "frozen", _sparse(old, dense, percent))
    again, _ = make()
    _start(again, 99)
    networks.train(again, forward, _mixed(name, 99), steps=_FIRST_STEPS, rate=rate, learned=_all(again))
    yield from both("retrain", again)
    if name == "kws":
        grown, _ = networks.keyword_spotter(14)
        _start(grown, 8)
        for unit, known in zip(grown[:-1], heavy[:-1], strict=True):
            vars(unit).update(vars(copy.deepcopy(known)))
        grown[-1].weight.value[:12], grown[-1].offset.value[:12] = heavy[-1].weight.value, heavy[-1].offset.value
        networks.train(grown, forward, _mixed(name, 9, 14), steps=40, rate=rate * 0.1, learned=_all(grown))
        fresh = _quantize(grown, _input_scales(name, grown, forward, True), None)
        frozen = [*_quantize(grown[:-1], [], old[:-1]), fresh[-1]]
        # The head comes first, so that everything behind it has moved.
        yield pair("addclass", "frozen", [frozen[-1], *frozen[:-1]])
        yield pair("addclass", "recal", [fresh[-1], *fresh[:-1]])


def _start(units: Network, seed: int) -> None:
    random = np.random.default_rng(seed)
    for unit in units:
        unit.start(random)


def _all(units: Network) -> list[Node]:
    return [node for unit in units for node in (unit.weight, *((unit.gain,) if unit.norm else ()), unit.offset)]


def _input_scales(name: str, units: Network, forward: Forward, drift: bool) -> list[float]:
    for unit in units:
        unit.peak = 0.0
    for _, (x, _) in zip(range(4), _batches(name, 5, drift), strict=False):
        forward(units, networks.Tape(False), Node(x))
    return [max(unit.peak, 1e-6) / 127 for unit in units]


def _quantize(units: Network, input_scales: list[float], frozen: list[_Quantized] | None) -> list[_Quantized]:
    layers = []
    for index, unit in enumerate(units):
        weight, bias = unit.folded()
        columns = unit.sort == "depthwise"
        if frozen is None:
            scale = (np.maximum(np.abs(weight).max(0 if columns else 1), 1e-8) / 127).astype(np.float32)
            input_scale = input_scales[index]
        else:
            scale, input_scale = frozen[index].scale, frozen[index].input_scale
        steps = np.rint(weight / (scale if columns else scale[:, None])).clip(-127, 127).astype(np.int8)
        biases = np.rint(bias / (scale.astype(np.float64) * input_scale)).clip(-(2**31), 2**31 - 1).astype("<i4")
        layers.append(_Quantized(unit.sort, steps, biases, scale, input_scale))
    return layers


def _sparse(old: list[_Quantized], new: list[_Quantized], percent: int) -> list[_Quantized]:
    """Only the weights that moved most."""
    random = np.random.default_rng(percent)
    moves = [
        np.abs(b.weight.astype(float) - a.weight) + random.uniform(0, 0.5, a.weight.shape)
        for a, b in zip(old, new, strict=True)
    ]
    bound = np.quantile(np.concatenate([move.ravel() for move in moves]), 1 - percent / 100)
    return [
        _Quantized(b.sort, np.where(move >= bound, b.weight, a.weight), b.bias, b.scale, b.input_scale)
        for a, b, move in zip(old, new, moves, strict=True)
    ]


def _pack(layers: list[_Quantized]) -> tuple[bytes, Layout]:
    image = bytearray(16 + 16 * len(layers))
    tensors: list[Tensor] = []

    def put(kind: str, values: np.ndarray, rows: int, columns: int) -> None:
        image.extend(bytes(-len(image) % 16))
        data = values.tobytes()
        tensors.append(Tensor(len(image), len(data), kind, rows, columns))  # type: ignore[arg-type]
        image.extend(data)

    for index, layer in enumerate(layers):
        struct.pack_into(
            "<IIfI", image, 16 + 16 * index, len(image), layer.weight.size, layer.input_scale, len(layer.scale)
        )
        put("f32", layer.scale.astype("<f4"), 1, len(layer.scale))
        put("i32", layer.bias.astype("<i4"), 1, len(layer.bias))
        put("i8dw" if layer.sort == "depthwise" else "i8", layer.weight, *layer.weight.shape)
    image[:16] = struct.pack("<4sIII", b"NETW", 1, len(layers), len(image))
    return bytes(image), tuple(tensors)


def write(directory: Path) -> None:
    """old.bin, new.bin and layout.json of every pair."""
    for pair in corpus():
        place = directory / pair.name
        place.mkdir(parents=True, exist_ok=True)
        (place / "old.bin").write_bytes(pair.old)
        (place / "new.bin").write_bytes(pair.new)
        sides = {"old": pair.old_layout, "new": pair.new_layout}
        rows = {
            side: [{"off": t.offset, "len": t.size, "kind": t.kind, "rows": t.rows, "cols": t.columns} for t in tensors]
            for side, tensors in sides.items()
        }
        (place / "layout.json").write_text(json.dumps(rows))


if __name__ == "__main__":
    write(Path(sys.argv[1] if len(sys.argv) > 1 else "var/patch-pairs"))
