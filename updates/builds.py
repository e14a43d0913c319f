"""From an upload to images with fits and a validation report, or to a refusal with its reason."""

from __future__ import annotations

import math
from dataclasses import asdict
from datetime import datetime
from typing import Any, cast

from django.db import transaction
from django.db.models import Count, QuerySet

from devices.models import FirmwareBuild, HardwareProfile, KnownImage, Node
from devices.services import PrefixClash, register_image
from fleet.audit.models import record
from fleet.blobs.models import load, store
from fleet.operations.services import observe
from fleet.operations.stopwatch import Stopwatch
from updates import models
from updates.fits import fit_images
from updates.leases import MAXIMUM_ATTEMPTS, Work, held, work_off
from updates.models import ModelFamily, ModelImage, ModelVersion
from updates.pipeline import build as pipeline
from updates.pipeline.choice import noise_db
from updates.pipeline.document import SHAPE_FACTS, curve_entry, latency_entry, plain
from updates.pipeline.guard import Guard
from updates.pipeline.types import (
    CURVE_LIMITS,
    Against,
    BuildRequest,
    BuildResult,
    Image,
    Refused,
    Signal,
    TargetClass,
    Task,
    ValidationLimits,
    ValidationReport,
)
from updates.profiles import pipeline_profile, targets_for
from updates.radio_costs import against, transfer
from updates.selectors import held_classes, images_by_prefix
from updates.states import VersionState

# Which of the fleet's images are looked at for the one that most nodes of a family hold.
_MOST_HELD = 200
_KEPT_FACTS = ("arena_estimates", "work")


def build_due(now: datetime, limit: int = 1) -> int:
    """Builds up to `limit` versions that wait, or whose worker was lost; returns how many it ended.

    Raises what no pipeline stage foresaw, with the lease given back: the next call tries again, three times in all.
    """
    return work_off(_BUILDING, now, limit)


def _begin(now: datetime) -> dict[str, Any]:
    return {"state": VersionState.BUILDING, "progress_percent": 0, "build_started_at": now}


def _give_up(version: ModelVersion) -> None:
    _refuse(
        version,
        stage=version.stage,
        code="no_verdict",
        field="onnx",
        message=f"the build ended without a verdict {MAXIMUM_ATTEMPTS} times",
        fix="make the model smaller, or report this with the model attached",
    )


def _build(version: ModelVersion, mine: QuerySet[ModelVersion], now: datetime) -> None:
    stopwatch = Stopwatch(lambda stage, seconds: observe("build_seconds", stage, seconds))

    def report_progress(stage: str, fraction: float) -> None:
        stopwatch.begin(stage)
        mine.update(stage=stage, progress_percent=round(100 * fraction))

    with held(mine, now) as clock:
        try:
            result = pipeline.build(build_request(version), report_progress)
            with transaction.atomic():
                if current := mine.select_for_update(of=("self",)).first():
                    _store(current, result, clock())
        except Refused as refused:
            with transaction.atomic():
                if current := mine.select_for_update(of=("self",)).first():
                    _refuse(current, **vars(refused))


_BUILDING = Work(
    ModelVersion.objects.select_related("family").filter(state__in=[VersionState.UPLOADED, VersionState.BUILDING]),
    _build,
    _give_up,
    _begin,
)


def build_request(version: ModelVersion) -> BuildRequest:
    """Of a version's own files, for all profiles that run images of ours."""
    family = version.family
    hardware = list(HardwareProfile.objects.filter(runtime="tflm"))
    classes, profiles = held_classes(hardware), tuple(pipeline_profile(one) for one in hardware)
    return BuildRequest(
        onnx=load(version.onnx_id),
        calibration=load(version.calibration_id),
        evaluation=load(version.evaluation_id),
        targets=targets_for(profiles) if profiles else (TargetClass(),),
        profiles=profiles,
        limits=ValidationLimits.of(family.limits),
        preprocessing=family.preprocessing,
        task=cast("Task | None", None if family.task == "auto" else family.task),
        signal=Signal.of(family.signal),
        against=_against(family),
        contract=frozenset(FirmwareBuild.objects.values_list("io_hash", flat=True)),
        held={one.name: classes[one.pk, family.pk] for one in hardware if (one.pk, family.pk) in classes},
    )


def _against(family: ModelFamily) -> Against | None:
    """The image of the family that most nodes hold, where the owner has said what a smaller patch may cost."""
    if not CURVE_LIMITS & family.limits.keys():
        return None
    counted = Node.objects.exclude(active_digest="").values_list("active_digest").annotate(nodes=Count("id"))
    digests = [digest for digest, _ in counted.order_by("-nodes", "active_digest")[:_MOST_HELD]]
    images = images_by_prefix(digests)
    known = [image for digest in digests if (image := images.get(digest[:8])) and _may_be_base(image, family)]
    return against(load(known[0].blob_id)) if known else None


def _may_be_base(image: ModelImage, family: ModelFamily) -> bool:
    return image.version.family_id == family.pk and image.runtime == "tflm"


def _store(version: ModelVersion, result: BuildResult, now: datetime) -> None:
    """All of a build or nothing, in the caller's transaction. Raises Refused where reports could not tell images."""
    for image in result.images:
        give_up_refused_image(image.digest, version)
    noise = noise_db(result.reports)
    near = {point.digest for point in result.curve if point.chosen}
    for image in result.images:
        more = {"near_deployed": True} if image.digest in near else {}
        row = store_image(version, image, noise[image.digest], result.guards.get(image.digest), more)
        models.ValidationReport.objects.create(image=row, **report_fields(result.reports[image.digest]))
    fit_images(ModelImage.objects.filter(version=version), HardwareProfile.objects.all())
    version.tools, version.built_at, version.stage, version.progress_percent = result.tools, now, "done", 100
    version.evidence = {
        "left_out": [{**asdict(target), "reason": reason} for target, reason in result.left_out],
        "fp32_latency_ms": latency_entry(result.fp32_latency_ms),
        "curve": [curve_entry(point, None, transfer) for point in result.curve],
        "curve_refusal": result.curve_refusal,
    }
    version.lease_until = None
    if failure := _why_not_ready(result):
        _refuse(version, **failure)
        return
    version.state = VersionState.READY
    version.save()
    record(actor="pipeline", action="version.ready", subject=version, after={"tools": result.tools})


def _why_not_ready(result: BuildResult) -> dict[str, str] | None:
    """A version is ready once the image of one profile, or of none where nothing fits, is proved. Else the reasons of
    those that came nearest."""
    if any(report.verdict == "passed" for report in result.reports.values()):
        return None
    chosen = {choice.digest for choice in result.choices if choice.digest} or {result.images[0].digest}
    reports = [result.reports[digest] for digest in sorted(chosen)]
    failed = any(report.verdict == "failed" for report in reports)
    reasons = dict.fromkeys(reason for report in reports for reason in report.reasons)
    return {
        "stage": "validate",
        "code": "failed" if failed else "inconclusive",
        "field": "evaluation",
        "message": "the quantized model is not proved to decide like the original: " + " ".join(reasons),
        "fix": "send more calibration data or a model that quantizes better"
        if failed
        else "send more labelled evaluation samples",
    }


def give_up_refused_image(digest: str, version: ModelVersion) -> None:
    """An image belongs to one version. One that was refused, say for too little data, leaves it to the next."""
    known = ModelImage.objects.select_related("version__family").filter(known_id=digest).first()
    if known is None:
        return
    if known.version.state != VersionState.REFUSED:
        raise Refused(
            stage="judge",
            code="same_image",
            field="onnx",
            message=f"the image is byte for byte that of version {known.version}",
            fix="use that version",
        )
    known.delete()
    record(
        actor="pipeline",
        action="image.moved",
        subject=version,
        before={"version": known.version_id},
        after={"version": version.pk, "digest": digest},
    )


def store_image(
    version: ModelVersion, image: Image, noise: float, guard: Guard | None, more: dict[str, Any]
) -> ModelImage:
    facts = {name: value for name, value in asdict(image).items() if name in (*SHAPE_FACTS, *_KEPT_FACTS)}
    # JSON knows no infinity; null says that both outputs are equal.
    facts |= more | {"noise_db": noise if math.isfinite(noise) else None, "guard": asdict(guard) if guard else None}
    return ModelImage.objects.create(
        version=version,
        **asdict(image.target),
        known=_register_image(image.digest),
        blob=store(image.data),
        size=len(image.data),
        arena_bytes=image.arena_bytes,
        operators=list(image.operators),
        io_hash=image.io_hash,
        self_test_digest=image.self_test_digest,
        facts=facts,
    )


def _register_image(digest: str) -> KnownImage:
    try:
        return register_image(digest)
    except PrefixClash as clash:
        raise Refused(
            stage="judge",
            code="prefix_taken",
            field="onnx",
            message=str(clash),
            fix="change any weight and upload again",
        ) from clash


def report_fields(report: ValidationReport) -> dict[str, Any]:
    slices = [plain(asdict(part)) for part in report.slices]
    return {"verdict": report.verdict, "slices": slices, "reasons": list(report.reasons)}


def _refuse(version: ModelVersion, **reason: str) -> None:
    version.state, version.refusal, version.lease_until = VersionState.REFUSED, reason, None
    version.save()
    record(actor="pipeline", action="version.refused", subject=version, after=reason)
