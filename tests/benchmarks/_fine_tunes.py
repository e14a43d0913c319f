"""Four networks of MLPerf Tiny's sizes, each learned on clean data and then wholly fine-tuned where the data has drifted.

Numpy and seeds only: the same networks everywhere, in three minutes of one core, kept under var/. Sensors drift here as in
the field: another background, a shifted level, a changed gain, more noise.
"""

from __future__ import annotations

import copy
import hashlib
import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tests.benchmarks import _networks as networks
from tests.benchmarks._networks import Array, Network, Node
from tests.benchmarks._onnx_export import export

# One more with each change of how the networks are made.
RECIPE = 1
CACHE = Path(__file__).parents[2] / "var/fine-tunes"
NAMES = ("ad", "resnet8", "mobilenet", "kws")
_MAKE = {
    "ad": networks.anomaly_detector,
    "kws": networks.keyword_spotter,
    "resnet8": networks.image_classifier,
    "mobilenet": networks.wake_word_camera,
}


@dataclass(frozen=True)
class _Task:
    """Pictures of so many classes; `noise` of clean and drifted data; `background`: how loud the drifted one is."""

    shape: tuple[int, ...]
    classes: int
    noise: tuple[float, float]
    background: float
    rate: float
    steps: tuple[int, int]
    batch: int


_TASKS = {
    "ad": _Task((640,), 0, (0.2, 0.25), 0.5, 1e-3, (600, 300), 64),
    "kws": _Task((25, 10, 1), 12, (0.8, 1.0), 0.8, 2e-3, (200, 150), 32),
    "resnet8": _Task((16, 16, 3), 10, (2.2, 2.4), 1.0, 2e-3, (200, 150), 32),
    "mobilenet": _Task((32, 32, 3), 2, (0.8, 1.0), 0.8, 2e-3, (1000, 300), 24),
}


@dataclass(frozen=True)
class FineTune:
    """ONNX of both versions. `shape`: of one input, channels last, while the ONNX takes channels first."""

    name: str
    first: bytes
    second: bytes

    def data(self, n: int, *, seed: int, drifted: bool) -> tuple[Array, np.ndarray]:
        """Inputs as the ONNX takes them and labels: classes, or for the autoencoder the inputs themselves."""
        inputs: list[Array] = []
        labels: list[np.ndarray] = []
        for x, y in _batches(self.name, seed, (drifted,)):
            inputs.append(x)
            labels.append(x if y is None else y)
            if sum(map(len, inputs)) >= n:
                break
        x = np.concatenate(inputs)[:n]
        return (x if x.ndim == 2 else np.ascontiguousarray(np.moveaxis(x, -1, 1))), np.concatenate(labels)[:n]


def fine_tune(name: str) -> FineTune:
    made_by = repr((_TASKS[name], RECIPE)).encode() + Path(networks.__file__).read_bytes()
    kept = CACHE / f"{name}-{hashlib.sha256(made_by).hexdigest()[:16]}.pickle"
    if not kept.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        scratch = kept.with_suffix(".new")
        scratch.write_bytes(pickle.dumps(_learned(name)))
        scratch.replace(kept)
    return FineTune(name, *pickle.loads(kept.read_bytes()))  # noqa: S301  # this program wrote it


def _learned(name: str) -> tuple[bytes, bytes]:
    task = _TASKS[name]
    units, forward = _MAKE[name]()
    random = np.random.default_rng(1)
    for unit in units:
        unit.start(random)
    networks.train(
        units, forward, _batches(name, 1, (False,)), steps=task.steps[0], rate=task.rate, learned=_all(units)
    )
    tuned = copy.deepcopy(units)
    networks.train(
        tuned, forward, _batches(name, 2, (False, True)), steps=task.steps[1], rate=0.3 * task.rate, learned=_all(tuned)
    )
    return export(units, forward, task.shape), export(tuned, forward, task.shape)


def _all(units: Network) -> list[Node]:
    return [node for unit in units for node in (unit.weight, *((unit.gain,) if unit.norm else ()), unit.offset)]


def _batches(name: str, seed: int, drifts: tuple[bool, ...]) -> Iterator[tuple[Array, npt.NDArray[np.intp] | None]]:
    """Of each batch as many samples from each kind of data."""
    task, random = _TASKS[name], np.random.default_rng(seed)
    world = np.random.default_rng(77)
    background = world.normal(0, 1, task.shape)
    mixing = world.normal(0, 1, (12, 640))
    pictures = _pictures(task.shape, max(1, task.classes), world) if task.classes else np.empty(0)
    while True:
        inputs, labels = [], []
        for drift in drifts:
            n = task.batch // len(drifts)
            noise = random.normal(0, task.noise[drift], (n, *task.shape)) + drift * task.background * background
            if task.classes:
                label = random.integers(0, task.classes, n)
                gain = random.uniform(0.7, 1.3, (n, 1, 1, 1)) * (1.15 if drift else 1)
                x = np.roll(pictures[label] * gain, random.integers(-2, 3), axis=1) + 0.3 * drift
                labels.append(label)
            else:
                x = np.tanh(random.normal(0.4 * drift, 1, (n, 12)) ** 2 @ mixing * 0.3)
            inputs.append(x + noise)
        yield np.concatenate(inputs).astype(np.float32), np.concatenate(labels) if labels else None


def _pictures(shape: tuple[int, ...], classes: int, world: np.random.Generator) -> npt.NDArray[np.float64]:
    """One smooth picture a class."""
    height, width, channels = shape
    coarse = world.normal(0, 1, (classes, 4, 4, channels))
    rows, columns = np.linspace(0, 3, height), np.linspace(0, 3, width)
    tall = np.maximum(0, 1 - np.abs(rows[:, None] - np.arange(4)))
    wide = np.maximum(0, 1 - np.abs(columns[:, None] - np.arange(4)))
    found: npt.NDArray[np.float64] = np.einsum("ha,wb,nabc->nhwc", tall, wide, coarse)
    return found
