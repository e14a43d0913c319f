"""The slices that both networks are shown: the uploaded ones, those made by perturbing the clean one, and the baseline.

Files of slice i: inputs-<i>.npy in the ONNX model's layout, labels-<i>.npy where there are labels, fp32-<i>.npy in the
image's layout.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from updates.pipeline import perturb
from updates.pipeline.convert import fp32_latency_ms, fp32_outputs
from updates.pipeline.types import Signal

_TIMED = 200
# What TFLM's reference kernels may spend on the perturbed slices of one image: 10 to 20 s of one core.
BUDGET_MACS = 8_000_000_000
SEED = 1


def perturbed_samples(n: int, *, macs: int, least: int) -> int:
    """How many of n clean samples each perturbed slice takes: all where time allows, and `least` in any case."""
    allowed = BUDGET_MACS // max(1, macs * len(perturb.PERTURBATIONS))
    return min(n, max(least, allowed))


def rows(n: int, kept: int) -> npt.NDArray[np.int64]:
    """`kept` of n, evenly spread: a file's order may mean something."""
    return np.asarray(np.arange(kept) * n // kept, np.int64)


def moved(values: npt.NDArray[Any], order: list[int]) -> npt.NDArray[Any]:
    """(n, ...) from the ONNX model's layout to the image's."""
    return np.ascontiguousarray(values.transpose(0, *(1 + axis for axis in order)))


def baseline_stage(directory: Path, arguments: dict[str, Any]) -> dict[str, Any]:
    """Child: fp32-<i>.npy of the first `slices` slices; p50 and p99 of the baseline in ms."""
    model = (directory / "checked.onnx").read_bytes()
    for index in range(arguments["slices"]):
        _save_baseline(directory, model, index, np.load(directory / f"inputs-{index}.npy"), arguments["output_order"])
    return {"latency_ms": fp32_latency_ms(model, np.load(directory / "inputs-0.npy")[:_TIMED])}


def perturb_stage(directory: Path, arguments: dict[str, Any]) -> dict[str, Any]:
    """Child: slice 0 perturbed in each way that is not `taken` by an uploaded slice, from index `first` on."""
    model = (directory / "checked.onnx").read_bytes()
    clean = np.load(directory / "inputs-0.npy")
    chosen = rows(len(clean), arguments["samples"])
    np.save(directory / "perturbed-rows.npy", chosen)
    labels = directory / "labels-0.npy"
    made: list[dict[str, Any]] = []
    for name, inputs in perturb.perturbed(clean[chosen], Signal(**arguments["signal"]), seed=SEED).items():
        if name in arguments["taken"]:
            continue
        index = arguments["first"] + len(made)
        np.save(directory / f"inputs-{index}.npy", inputs)
        if labels.exists():
            np.save(directory / f"labels-{index}.npy", np.load(labels)[chosen])
        _save_baseline(directory, model, index, inputs, arguments["output_order"])
        made.append({"name": name, "labels": labels.exists(), "perturbed": True})
    return {"slices": made}


def _save_baseline(
    directory: Path, model: bytes, index: int, inputs: npt.NDArray[np.float32], output_order: list[int]
) -> None:
    np.save(directory / f"fp32-{index}.npy", moved(fp32_outputs(model, inputs), output_order))
