"""The whole way: upload to images, fits and validation reports. Called by the Celery task and the command line."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from updates.pipeline import arena, child, latency
from updates.pipeline.arrays import MAXIMUM_UPLOAD_BYTES
from updates.pipeline.check import check_size
from updates.pipeline.evidence import ArenaEvidence
from updates.pipeline.fit import fit
from updates.pipeline.quantize import check_target
from updates.pipeline.types import (
    BuildRequest,
    BuildResult,
    Fit,
    Image,
    Profile,
    Refused,
    TargetClass,
    ValidationLimits,
    ValidationReport,
    io_hash,
)
from updates.pipeline.validate import compare, validate

TOOLS = ("ai-edge-litert", "ai-edge-quantizer", "numpy", "onnx", "onnx2tf", "onnxruntime", "tflite-micro")
KERNEL_LIBRARIES = ("reference", "cmsis-nn")
_STAGES_PER_TARGET = 4


def build(request: BuildRequest, report_progress: Callable[[str, float], None]) -> BuildResult:
    """Builds one image a target class, fits it to every profile of its runtime and validates it.

    report_progress(stage, fraction of the whole from 0 to 1) is called when a stage begins, and ("done", 1.0) at the
    end. The same request gives the same bytes. A model that does not fit or does not pass is a result, not an
    exception. Raises Refused where no image can be made. Peaks at 2 GB in one child; seconds for a 300 KB model.
    """
    if not request.targets:
        raise Refused(
            stage="check", code="no_target", field="targets", message="no target class is given", fix="add one"
        )
    check_size(request.onnx)
    for field, upload in (("calibration", request.calibration), ("evaluation", request.evaluation)):
        if len(upload) > MAXIMUM_UPLOAD_BYTES:
            raise Refused(
                stage="arrays",
                code="too_large",
                field=field,
                message=f"{len(upload)} bytes exceed the limit of {MAXIMUM_UPLOAD_BYTES}",
                fix="use fewer samples",
            )
    for target in request.targets:
        check_target(target)
    total = 2 + _STAGES_PER_TARGET * len(request.targets)
    begun = 0

    def begin(stage: str) -> None:
        nonlocal begun
        report_progress(stage, begun / total)
        begun += 1

    images: list[Image] = []
    left_out: list[tuple[TargetClass, Refused]] = []
    fits: dict[str, tuple[Fit, ...]] = {}
    reports: dict[str, ValidationReport] = {}
    with tempfile.TemporaryDirectory(prefix="modelfleet-build-") as name:
        directory = Path(name)
        (directory / "model.onnx").write_bytes(request.onnx)
        (directory / "calibration.npz").write_bytes(request.calibration)
        (directory / "evaluation.npz").write_bytes(request.evaluation)
        begin("check")
        model = child.run("check", "updates.pipeline.check:stage", directory, {})
        begin("convert")
        layout = child.run("convert", "updates.pipeline.convert:stage", directory, {"operators": model["operators"]})
        for target in request.targets:
            try:
                image = _image(directory, target, model, layout, request.preprocessing, begin)
            except Refused as refused:
                left_out.append((target, refused))
                begun = 2 + _STAGES_PER_TARGET * (len(images) + len(left_out))
                continue
            begin("validate")
            images.append(image)
            fits[image.digest] = tuple(fit_image(image, profile) for profile in request.profiles)
            reports[image.digest] = _validate(directory, model["slices"], request.limits)
        if not images:
            raise left_out[0][1]
        fp32_latency_ms = tuple(json.loads((directory / "fp32-latency.json").read_text()))
    report_progress("done", 1.0)
    return BuildResult(
        tuple(images),
        fits,
        reports,
        {tool: version(tool) for tool in TOOLS},
        tuple((target, str(refused)) for target, refused in left_out),
        fp32_latency_ms,
    )


def fit_image(image: Image, profile: Profile) -> Fit:
    """`fit` of a whole image on a profile as it is."""
    return fit(
        image_bytes=len(image.data),
        arena=ArenaEvidence(image.arena_bytes, image.arena_estimates, precision=image.target.precision),
        alignment=image.target.alignment,
        operators=image.operators,
        profile=profile,
        runtime=image.target.runtime,
        latency=latency.estimate(image.work, profile, precision=image.target.precision),
    )


def _image(
    directory: Path,
    target: TargetClass,
    model: dict[str, Any],
    layout: dict[str, Any],
    preprocessing: str,
    begin: Callable[[str], None],
) -> Image:
    begin("quantize")
    child.run("quantize", "updates.pipeline.quantize:stage", directory, layout | {"target": asdict(target)})
    begin("post_pass")
    passed = child.run("post_pass", "updates.pipeline.post_pass:stage", directory, {"alignment": target.alignment})
    begin("judge")
    facts = child.run("judge", "updates.pipeline.judge:stage", directory, layout | {"slices": len(model["slices"])})
    data = (directory / "image.tflite").read_bytes()
    facts["arena_estimates"] = {
        library: arena.plan(data, kernel_library=library).total_bytes for library in KERNEL_LIBRARIES
    }
    facts["input_shape"], facts["output_shape"] = tuple(facts["input_shape"]), tuple(facts["output_shape"])
    return Image(
        target=target,
        data=data,
        digest=hashlib.sha256(data).hexdigest(),
        operators=tuple(passed["operators"]),
        work=latency.work(data),
        io_hash=io_hash(
            facts["input_shape"], facts["input_type"], facts["output_shape"], facts["output_type"], preprocessing
        ),
        **facts,
    )


def _validate(directory: Path, slices: list[dict[str, Any]], limits: ValidationLimits) -> ValidationReport:
    results = []
    for index, part in enumerate(slices):
        labels = np.load(directory / f"labels-{index}.npy") if part["labels"] else None
        fp32, int8 = np.load(directory / f"fp32-{index}.npy"), np.load(directory / f"int8-{index}.npy")
        results.append(compare(part["name"], fp32, int8, labels, limits))
    return validate(results)
