"""From an upload to images with fits and a validation report, or to a refusal with its reason.

Builds are leased from PostgreSQL: any worker may take one up, and one that was killed loses its lease, never the work.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

from django.db import connection, transaction
from django.db.models import Q

from devices.models import HardwareProfile, KnownImage
from devices.services import PrefixClash, register_image
from fleet.audit.models import record
from fleet.blobs.models import load, store
from fleet.operations.services import observe
from fleet.operations.stopwatch import Stopwatch
from updates import models
from updates.models import ModelImage, ModelVersion
from updates.pipeline import build as pipeline
from updates.pipeline.fit import fit
from updates.pipeline.types import (
    BuildRequest,
    BuildResult,
    Image,
    Refused,
    TargetClass,
    ValidationLimits,
    ValidationReport,
)
from updates.profiles import arena_evidence, compiled_refusals, latency_estimate, pipeline_profile
from updates.states import VersionState

LEASE = timedelta(minutes=2)
RENEW_EVERY_S = 20.0
MAXIMUM_ATTEMPTS = 3
# Serializes "fit this image to all profiles" with "fit all images to this profile": neither misses what the other adds.
_FIT_LOCK = 0x666974


def build_due(now: datetime, limit: int = 1) -> int:
    """Builds up to `limit` versions that wait, or whose worker was lost; returns how many it ended.

    Raises what no pipeline stage foresaw, with the lease given back: the next call tries again, three times in all.
    """
    ended = 0
    for _ in range(limit):
        version = _lease_version(now)
        if version is None:
            return ended
        if version.state == VersionState.BUILDING:
            _build(version, now)
        ended += 1
    return ended


def _lease_version(now: datetime) -> ModelVersion | None:
    with transaction.atomic():
        version = (
            ModelVersion.objects.select_for_update(skip_locked=True, of=("self",))
            .select_related("family")
            .filter(state__in=[VersionState.UPLOADED, VersionState.BUILDING])
            .filter(Q(lease_until__isnull=True) | Q(lease_until__lt=now))
            .order_by("id")
            .first()
        )
        if version is None:
            return None
        if version.attempts >= MAXIMUM_ATTEMPTS:
            _refuse(
                version,
                stage=version.stage,
                code="no_verdict",
                field="onnx",
                message=f"the build ended without a verdict {MAXIMUM_ATTEMPTS} times",
                fix="make the model smaller, or report this with the model attached",
            )
            return version
        version.state, version.attempts = VersionState.BUILDING, version.attempts + 1
        version.lease_until, version.progress_percent, version.build_started_at = now + LEASE, 0, now
        version.save(update_fields=["state", "attempts", "lease_until", "progress_percent", "build_started_at"])
    return version


def _build(version: ModelVersion, now: datetime) -> None:
    # The number of the attempt fences: a worker that lost its lease writes to no row.
    mine = ModelVersion.objects.filter(pk=version.pk, state=VersionState.BUILDING, attempts=version.attempts)

    stopwatch = Stopwatch(lambda stage, seconds: observe("build_seconds", stage, seconds))

    def report_progress(stage: str, fraction: float) -> None:
        stopwatch.begin(stage)
        mine.update(stage=stage, progress_percent=round(100 * fraction))

    began = time.monotonic()
    with _renewing(lambda: mine.update(lease_until=now + timedelta(seconds=time.monotonic() - began) + LEASE)):
        try:
            result = pipeline.build(_request(version), report_progress)
            with transaction.atomic():
                if held := mine.select_for_update(of=("self",)).select_related("family").first():
                    _store(held, result, now + timedelta(seconds=time.monotonic() - began))
        except Refused as refused:
            with transaction.atomic():
                if held := mine.select_for_update(of=("self",)).select_related("family").first():
                    _refuse(held, **vars(refused))
        except BaseException:
            mine.update(lease_until=now)
            raise


@contextmanager
def _renewing(renew: Callable[[], object]) -> Iterator[None]:
    """Renews the lease from a thread: one stage may take longer than a lease lasts."""
    done = threading.Event()

    def run() -> None:
        try:
            while not done.wait(RENEW_EVERY_S):
                renew()
        finally:
            connection.close()

    thread = threading.Thread(target=run, name="renew-lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _request(version: ModelVersion) -> BuildRequest:
    wanted = HardwareProfile.objects.filter(runtime="tflm").values_list("alignment", "cache_line_bytes")
    return BuildRequest(
        onnx=load(version.onnx_id),
        calibration=load(version.calibration_id),
        evaluation=load(version.evaluation_id),
        # One image for all: what is aligned to the widest is aligned to the others.
        targets=(TargetClass(alignment=max([16, *(max(both) for both in wanted)])),),
        limits=ValidationLimits(**version.family.limits),
        preprocessing=version.family.preprocessing,
    )


def _store(version: ModelVersion, result: BuildResult, now: datetime) -> None:
    """All of a build or nothing, in the caller's transaction. Raises Refused where reports could not tell images."""
    for image in result.images:
        _give_up_refused_image(image.digest, version)
    failed: list[str] = []
    for image in result.images:
        report = result.reports[image.digest]
        row = _store_image(version, image)
        models.ValidationReport.objects.create(image=row, **_report_fields(report))
        _fit(ModelImage.objects.filter(pk=row.pk), HardwareProfile.objects.all())
        if report.verdict != "passed":
            failed += [f"{part.name}: {reason}" for part in report.slices for reason in part.reasons] or [
                f"the verdict is {report.verdict}"
            ]
    version.tools, version.built_at, version.stage, version.progress_percent = result.tools, now, "done", 100
    version.lease_until = None
    if failed:
        verdicts = {report.verdict for report in result.reports.values()}
        _refuse(
            version,
            stage="validate",
            code="failed" if "failed" in verdicts else "inconclusive",
            field="evaluation",
            message="the quantized model is not proved to decide like the original: " + " ".join(failed),
            fix="send more calibration data or a model that quantizes better"
            if "failed" in verdicts
            else "send more labelled evaluation samples",
        )
        return
    version.state = VersionState.READY
    version.save()
    record(actor="pipeline", action="version.ready", subject=version, after={"tools": result.tools})


def _give_up_refused_image(digest: str, version: ModelVersion) -> None:
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


def _store_image(version: ModelVersion, image: Image) -> ModelImage:
    facts = asdict(image)
    kept = ("input_shape", "input_type", "output_shape", "output_type", "input_scale", "input_zero_point")
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
        facts={name: facts[name] for name in (*kept, "output_scale", "output_zero_point", "arena_estimates", "work")},
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


def _report_fields(report: ValidationReport) -> dict[str, Any]:
    slices = [asdict(part) for part in report.slices]
    for part in slices:
        # JSON knows no infinity; null says that both outputs are equal.
        part["sqnr_db"] = part["sqnr_db"] if math.isfinite(part["sqnr_db"]) else None
    return {"verdict": report.verdict, "slices": slices, "reasons": list(report.reasons)}


def _refuse(version: ModelVersion, **reason: str) -> None:
    version.state, version.refusal, version.lease_until = VersionState.REFUSED, reason, None
    version.save()
    record(actor="pipeline", action="version.refused", subject=version, after=reason)


def refit(profile: HardwareProfile) -> int:
    """Judges every image on this profile anew, after it was made or changed; returns how many."""
    with transaction.atomic():
        return _fit(ModelImage.objects.all(), HardwareProfile.objects.filter(pk=profile.pk))


def fit_again(image: ModelImage) -> int:
    """Judges one image on every profile, in the caller's transaction; returns how many."""
    return _fit([image], HardwareProfile.objects.all())


def _fit(images: Iterable[ModelImage], profiles: Iterable[HardwareProfile]) -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_FIT_LOCK])
    rows = []
    for image in images:
        for profile in profiles:
            verdict = fit(
                image_bytes=image.size,
                arena=arena_evidence(image),
                alignment=image.alignment,
                operators=tuple(image.operators),
                profile=pipeline_profile(profile),
                runtime=image.runtime,
                latency=latency_estimate(image, profile),
                refusals=compiled_refusals(image, profile),
            )
            numbers = asdict(verdict)
            reasons, fits = list(numbers.pop("reasons")), numbers.pop("fits")
            rows.append(models.Fit(image=image, profile=profile, fits=fits, numbers=numbers, reasons=reasons))
    models.Fit.objects.bulk_create(
        rows,
        update_conflicts=True,
        unique_fields=["image", "profile"],
        update_fields=["fits", "numbers", "reasons"],
        batch_size=1000,
    )
    return len(rows)
