"""What the field does to clean samples: each perturbation makes one more slice that must be decided as before.

All chance comes from a seed and the name of the perturbation, so the same data give the same slices on every machine.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from updates.pipeline.types import Signal

Floats = npt.NDArray[np.float32]
_Generator = np.random.Generator


@dataclass(frozen=True)
class Perturbation:
    """`needs_time`: only where a time axis is declared; `needs_rate`: and its rate."""

    name: str
    apply: Callable[[Floats, Signal, _Generator], Floats]
    needs_time: bool = False
    needs_rate: bool = False


def perturbed(inputs: Floats, signal: Signal, *, seed: int = 1) -> dict[str, Floats]:
    """Slices by name, each of the shape of `inputs` (n, ...). Raises ValueError for a time axis that is not there."""
    if signal.time_axis is not None and not 0 <= signal.time_axis < inputs.ndim - 1:
        raise ValueError(f"time_axis: {signal.time_axis}, a sample has dimensions 0 to {inputs.ndim - 2}")
    found = {}
    for one in PERTURBATIONS:
        if not applies(one, signal):
            continue
        name_seed = int.from_bytes(hashlib.sha256(one.name.encode()).digest()[:8], "big")
        random = np.random.default_rng([seed, name_seed])
        found[one.name] = np.ascontiguousarray(one.apply(inputs, signal, random), np.float32)
    return found


def applies(one: Perturbation, signal: Signal) -> bool:
    """Hum needs a rate of more than twice the mains' frequency: below, it would be another one."""
    if one.needs_rate:
        rate = signal.sample_rate_hz
        return signal.time_axis is not None and rate is not None and rate > 2 * signal.mains_hz
    return signal.time_axis is not None or not one.needs_time


def _power(inputs: Floats) -> npt.NDArray[np.float64]:
    """Mean square of each sample's deviation from its mean, broadcastable to `inputs`; never 0."""
    axes = tuple(range(1, inputs.ndim))
    return np.asarray(np.maximum(inputs.astype(np.float64).var(axis=axes, keepdims=True), 1e-12))


def _noise(decibels: float) -> Callable[[Floats, Signal, _Generator], Floats]:
    def apply(inputs: Floats, signal: Signal, random: _Generator) -> Floats:
        scale = np.sqrt(_power(inputs) * 10 ** (-decibels / 10))
        return np.asarray(inputs + scale * random.standard_normal(inputs.shape), np.float32)

    return apply


def _hum(inputs: Floats, signal: Signal, random: _Generator) -> Floats:
    """A tenth of the sample's amplitude, phase by chance, the same on all channels."""
    if signal.time_axis is None or signal.sample_rate_hz is None:
        raise ValueError("hum: needs a time axis and its rate")
    axis = signal.time_axis + 1
    shape = [1] * inputs.ndim
    shape[axis] = inputs.shape[axis]
    seconds = np.arange(inputs.shape[axis]).reshape(shape) / signal.sample_rate_hz
    phase = random.uniform(0, 2 * np.pi, (len(inputs), *[1] * (inputs.ndim - 1)))
    tone = np.sqrt(2) * np.sin(2 * np.pi * signal.mains_hz * seconds + phase)
    return np.asarray(inputs + 0.1 * np.sqrt(_power(inputs)) * tone, np.float32)


def _runs(inputs: Floats, signal: Signal, random: _Generator, *, share: float, length: int) -> npt.NDArray[np.bool_]:
    """A mask of runs that cover about `share` of each sample: along time, else of single values."""
    if signal.time_axis is None:
        return np.asarray(random.random(inputs.shape) < share)
    axis = signal.time_axis + 1
    steps = inputs.shape[axis]
    starts = random.random((len(inputs), steps)) < share / length
    covered = starts.copy()
    for shift in range(1, min(length, steps)):
        covered[:, shift:] |= starts[:, :-shift]
    shape = [1] * inputs.ndim
    shape[0], shape[axis] = len(inputs), steps
    return np.broadcast_to(covered.reshape(shape), inputs.shape)


def _impulses(inputs: Floats, signal: Signal, random: _Generator) -> Floats:
    """Bursts of up to 3 steps, five times the sample's amplitude, 2 % of the time."""
    mask = _runs(inputs, signal, random, share=0.02, length=3)
    signs = np.where(random.random(inputs.shape) < 0.5, -1.0, 1.0)
    return np.asarray(inputs + mask * signs * 5 * np.sqrt(_power(inputs)), np.float32)


def _dropouts(inputs: Floats, signal: Signal, random: _Generator) -> Floats:
    """Gaps of up to 5 steps that read as zero, 5 % of the time."""
    return np.where(_runs(inputs, signal, random, share=0.05, length=5), np.float32(0), inputs)


def _gain(factor: float) -> Callable[[Floats, Signal, _Generator], Floats]:
    return lambda inputs, signal, random: inputs * np.float32(factor)


def _offset(deviations: float) -> Callable[[Floats, Signal, _Generator], Floats]:
    return lambda inputs, signal, random: np.asarray(inputs + deviations * inputs.std(dtype=np.float64), np.float32)


def _clip(inputs: Floats, signal: Signal, random: _Generator) -> Floats:
    """The range ends at 0.7 of each sample's own peak, as with a converter whose reference has dropped."""
    axes = tuple(range(1, inputs.ndim))
    peak = 0.7 * np.abs(inputs).max(axis=axes, keepdims=True)
    return np.clip(inputs, -peak, peak)


def _clock(drift: float) -> Callable[[Floats, Signal, _Generator], Floats]:
    def apply(inputs: Floats, signal: Signal, random: _Generator) -> Floats:
        """A node whose clock is fast by `drift` takes its samples closer together; linear between the true ones."""
        if signal.time_axis is None:
            raise ValueError("clock drift: needs a time axis")
        axis = signal.time_axis + 1
        steps = inputs.shape[axis]
        place = np.clip(np.arange(steps) / (1 + drift), 0, steps - 1)
        low = np.floor(place).astype(int)
        high = np.minimum(low + 1, steps - 1)
        shape = [1] * inputs.ndim
        shape[axis] = steps
        weight = (place - low).reshape(shape)
        return np.asarray(inputs.take(low, axis) * (1 - weight) + inputs.take(high, axis) * weight, np.float32)

    return apply


PERTURBATIONS = (
    Perturbation("noise-20db", _noise(20)),
    Perturbation("noise-10db", _noise(10)),
    Perturbation("noise-5db", _noise(5)),
    Perturbation("mains-hum", _hum, needs_time=True, needs_rate=True),
    Perturbation("impulse-bursts", _impulses),
    Perturbation("gain+20%", _gain(1.2)),
    Perturbation("gain-20%", _gain(0.8)),
    Perturbation("offset+", _offset(0.1)),
    Perturbation("offset-", _offset(-0.1)),
    Perturbation("dropouts", _dropouts),
    Perturbation("clipping", _clip),
    Perturbation("clock+3%", _clock(0.03), needs_time=True),
    Perturbation("clock-3%", _clock(-0.03), needs_time=True),
)
