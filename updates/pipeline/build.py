"""The whole way: upload to images, fits, choices and validation reports. Called by the Celery task and the command line."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version

from updates.pipeline import against, latency
from updates.pipeline.arrays import MAXIMUM_UPLOAD_BYTES
from updates.pipeline.bench import Bench
from updates.pipeline.check import check_size
from updates.pipeline.evidence import ArenaEvidence
from updates.pipeline.fit import fit
from updates.pipeline.quantize import check_target
from updates.pipeline.types import BuildRequest, BuildResult, Fit, Image, Profile, Refused
from updates.pipeline.workroom import workroom

TOOLS = ("ai-edge-litert", "ai-edge-quantizer", "numpy", "onnx", "onnx2tf", "onnxruntime", "tflite-micro")
_STEPS_PER_TARGET = 3


def build(request: BuildRequest, report_progress: Callable[[str, float], None]) -> BuildResult:
    """Builds one image a target class, fits it and those that exist to every profile and shows them the uploaded slices; what
    a profile would get then runs on perturbed samples too.

    report_progress(stage, fraction of the whole from 0 to 1) is called in the caller's thread when a stage begins, and
    ("done", 1.0) at the end. The same request gives the same bytes. A model that does not fit or does not pass is a
    result, not an exception. Raises Refused where no image can be made. Two children at a time, 2 GB each at most.
    """
    _check_request(request)
    total = 4 + (request.against is not None) + _STEPS_PER_TARGET * len(request.targets) + len(request.existing)
    begun = 0

    def begin(stage: str) -> None:
        nonlocal begun
        report_progress(stage, min(1.0, begun / total))
        begun += 1

    with workroom() as room:
        bench = Bench(room, request, begin)
        images, left_out = bench.images()
        fits = {image.digest: tuple(fit_image(image, profile) for profile in request.profiles) for image in images}
        begin("validate")
        choices, reports = bench.prove(images, fits)
        found = against.Found()
        if request.against is not None:
            begin("against")
            found = against.near_deployed(bench, images, choices, request.against, fit_image)
            images, choices = found.images, found.choices
            fits |= {image.digest: tuple(fit_image(image, profile) for profile in request.profiles) for image in images}
            reports |= found.reports
            kept = [image.digest for image in images]
            fits, reports = {one: fits[one] for one in kept}, {one: reports[one] for one in kept}
        guards = {image.digest: bench.guard(image) for image in images}
        latency_ms = bench.latency_ms
    report_progress("done", 1.0)
    return BuildResult(
        images=images,
        fits=fits,
        reports=reports,
        tools={tool: version(tool) for tool in TOOLS},
        left_out=left_out,
        fp32_latency_ms=latency_ms,
        choices=choices,
        guards=guards,
        curve=found.points,
        curve_refusal=found.refusal,
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


def _check_request(request: BuildRequest) -> None:
    if not request.targets and not request.existing:
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
