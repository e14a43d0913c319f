"""From ONNX to the bytes of a slot, by the pipeline's own stages in its own child processes."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tests.networks import npz
from updates.pipeline import child
from updates.pipeline.types import TargetClass


def build_image(
    directory: Path, onnx: bytes, calibration: npt.NDArray[np.float32], target: TargetClass | None = None
) -> dict[str, Any]:
    """Leaves float.tflite, image.tflite, checked.onnx and calibration.npy in `directory`, and gives the layouts that the
    convert stage found. calibration: (n, ...), as the ONNX model takes it."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "model.onnx").write_bytes(onnx)
    for name in ("calibration", "evaluation"):
        (directory / f"{name}.npz").write_bytes(npz(inputs=calibration))
    wanted = target or TargetClass()
    checked = child.run("check", "updates.pipeline.check:stage", directory, {})
    layout = child.run("convert", "updates.pipeline.convert:stage", directory, {"operators": checked["operators"]})
    child.run("quantize", "updates.pipeline.quantize:calibrate_stage", directory, layout)
    child.run("quantize", "updates.pipeline.quantize:stage", directory, layout | {"target": asdict(wanted)})
    child.run("post_pass", "updates.pipeline.post_pass:stage", directory, {"alignment": wanted.alignment})
    return layout
