"""What is done with model versions and patches: upload, build, fit to profiles. Campaigns have services of their own.

Builds are leased from PostgreSQL: any worker may take one up, and one that was killed loses its lease, never the work.
"""

from __future__ import annotations

import hashlib
import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

import structlog
from django.core.exceptions import ValidationError
from django.db import IntegrityError, connection, transaction
from django.db.models import F, Q

from devices.models import HardwareProfile, KnownImage
from fleet.audit.models import record
from fleet.blobs.models import load, store
from updates import models
from updates.models import ModelFamily, ModelImage, ModelVersion, Patch
from updates.patches.codec import PatchFailed, build_patch
from updates.pipeline import build as pipeline
from updates.pipeline.arrays import MAXIMUM_UPLOAD_BYTES
from updates.pipeline.fit import fit
from updates.pipeline.types import (
    MAXIMUM_ONNX_BYTES,
    BuildRequest,
    BuildResult,
    Image,
    Profile,
    Refused,
    TargetClass,
    ValidationLimits,
    ValidationReport,
)
from updates.states import PatchState, VersionState

LEASE = timedelta(minutes=2)
RENEW_EVERY_S = 20.0
MAXIMUM_ATTEMPTS = 3
# Serializes "fit this image to all profiles" with "fit all images to this profile": neither misses what the other adds.
_FIT_LOCK = 0x666974
_log = structlog.get_logger(__name__)


class UploadRefused(Exception):
    """An upload that is not stored. `field` is the request's; str() is one sentence with the fix."""

    def __init__(self, field: str, message: str, fix: str) -> None:
        super().__init__(field, message, fix)
        self.field, self.message, self.fix = field, message, fix

    def __str__(self) -> str:
        return f"{self.field}: {self.message}; {self.fix}."


class UploadConflict(UploadRefused):
    """The upload contradicts a version that exists: versions never change."""


def ensure_family(
    *,
    name: str,
    preprocessing: str = "none",
    class_names: list[str] | None = None,
    limits: dict[str, float] | None = None,
    actor: str,
) -> tuple[ModelFamily, bool]:
    """The family and whether it is new. Raises UploadRefused for bad fields, UploadConflict where it exists otherwise.

    preprocessing names what the firmware does to raw data; it is part of the input and output contract. limits are
    field names and values of updates.pipeline.types.ValidationLimits.
    """
    try:
        ValidationLimits(**(limits or {}))
    except TypeError as error:
        known = ", ".join(ValidationLimits.__dataclass_fields__)
        raise UploadRefused("limits", f"{sorted(limits or {})} holds an unknown limit", f"use {known}") from error
    wanted: dict[str, Any] = {
        "preprocessing": preprocessing,
        "class_names": class_names or [],
        "limits": limits or {},
    }
    with transaction.atomic():
        family = ModelFamily(name=name, **wanted)
        _check(family, "family", exclude={"model_id"})
        family, created = ModelFamily.objects.get_or_create(name=name, defaults=wanted)
        if created:
            record(actor=actor, action="family.created", subject=family, after=wanted)
    for field, value in wanted.items():
        if getattr(family, field) != value:
            raise UploadConflict(
                field, f"family {name} has {getattr(family, field)!r}, not {value!r}", "use another family name"
            )
    return family, created


def upload_version(
    *, family_name: str, version_name: str, onnx: bytes, calibration: bytes, evaluation: bytes, actor: str
) -> tuple[ModelVersion, bool]:
    """The version and whether it is new. A family that does not exist is made with defaults.

    The same files under the same name give the version that exists. Raises UploadRefused for a bad name, an empty or
    too large file; UploadConflict for a known name with other files, or known files under another name.
    """
    files = {"onnx": onnx, "calibration": calibration, "evaluation": evaluation}
    for field, data in files.items():
        limit = MAXIMUM_ONNX_BYTES if field == "onnx" else MAXIMUM_UPLOAD_BYTES
        if not data:
            raise UploadRefused(field, "the file is empty", "send its bytes")
        if len(data) > limit:
            raise UploadRefused(field, f"{len(data)} bytes exceed the limit of {limit}", "send a smaller file")
    digests = b"".join(hashlib.sha256(data).digest() for data in files.values())
    digest = hashlib.sha256(digests).hexdigest()
    _check(ModelFamily(name=family_name), "family", exclude={"model_id"})
    _check(ModelVersion(name=version_name), "name", only={"name"})

    if existing := _existing(family_name, version_name, digest):
        return existing, False
    try:
        with transaction.atomic():
            family, _ = ModelFamily.objects.get_or_create(name=family_name)
            version = ModelVersion.objects.create(
                family=family,
                name=version_name,
                digest=digest,
                uploaded_by=actor,
                **{field: store(data) for field, data in files.items()},
            )
            record(actor=actor, action="version.uploaded", subject=version, after={"digest": digest})
    except IntegrityError:
        # Another process stored the same name or the same files at the same moment.
        if existing := _existing(family_name, version_name, digest):
            return existing, False
        raise
    return version, True


def _existing(family_name: str, version_name: str, digest: str) -> ModelVersion | None:
    versions = ModelVersion.objects.select_related("family")
    for version in versions.filter(Q(digest=digest) | Q(family__name=family_name, name=version_name)):
        same_name = (version.family.name, version.name) == (family_name, version_name)
        if same_name and version.digest == digest:
            return version
        if same_name:
            raise UploadConflict(
                "name",
                f"version {version} exists with other files, and a version never changes",
                "choose a new version name",
            )
        raise UploadConflict("onnx", f"these three files already are version {version}", "use that version")
    return None


def _check(instance: Any, field: str, *, exclude: set[str] | None = None, only: set[str] | None = None) -> None:
    names = {part.name for part in instance._meta.fields}
    try:
        instance.clean_fields(exclude=names - only if only else exclude)
    except ValidationError as error:
        key, messages = next(iter(error.message_dict.items()))
        raise UploadRefused(
            field if key == "name" else key,
            messages[0].rstrip("."),
            f"send at most {instance._meta.get_field('name').max_length} letters, digits, hyphens or underscores"
            if key == "name"
            else "correct it",
        ) from error


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
        version.lease_until, version.progress_percent = now + LEASE, 0
        version.save(update_fields=["state", "attempts", "lease_until", "progress_percent"])
    return version


def _build(version: ModelVersion, now: datetime) -> None:
    # The number of the attempt fences: a worker that lost its lease writes to no row.
    mine = ModelVersion.objects.filter(pk=version.pk, state=VersionState.BUILDING, attempts=version.attempts)

    def report_progress(stage: str, fraction: float) -> None:
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
    alignments = HardwareProfile.objects.filter(runtime="tflm").values_list("alignment", flat=True)
    return BuildRequest(
        onnx=load(version.onnx_id),
        calibration=load(version.calibration_id),
        evaluation=load(version.evaluation_id),
        # One image for all: what is aligned to the widest is aligned to the others.
        targets=(TargetClass(alignment=max([16, *alignments])),),
        limits=ValidationLimits(**version.family.limits),
        preprocessing=version.family.preprocessing,
    )


def _store(version: ModelVersion, result: BuildResult, now: datetime) -> None:
    """All of a build or nothing, in the caller's transaction. Raises Refused where nodes could not tell images apart."""
    for image in result.images:
        _give_up_refused_image(image.digest, version)
    failed: list[str] = []
    for image in result.images:
        report = result.reports[image.digest]
        row = _store_image(version, image)
        models.ValidationReport.objects.create(image=row, **_report_fields(report))
        _fit_missing(ModelImage.objects.filter(pk=row.pk), HardwareProfile.objects.all())
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
        facts={name: facts[name] for name in (*kept, "output_scale", "output_zero_point")},
    )


def _register_image(digest: str) -> KnownImage:
    if other := KnownImage.objects.filter(prefix=digest[:8]).exclude(digest=digest).first():
        raise Refused(
            stage="judge",
            code="prefix_taken",
            field="onnx",
            message=f"the image's first 4 bytes of digest are those of {other.digest}: reports could not tell them apart",
            fix="change any weight and upload again",
        )
    return KnownImage.objects.get_or_create(digest=digest, defaults={"prefix": digest[:8]})[0]


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


def pipeline_profile(profile: HardwareProfile) -> Profile:
    """The profile as the pipeline, which knows no database, takes it."""
    return Profile(
        name=profile.name,
        core=profile.core,
        clock_hz=profile.clock_hz,
        runtime=profile.runtime,
        kernel_library=profile.kernel_library,
        slot_bytes=profile.slot_bytes,
        sram_bytes=profile.sram_bytes,
        reserved_sram_bytes=profile.reserved_sram_bytes,
        arena_fraction=profile.arena_fraction,
        alignment=profile.alignment,
        cache_line=profile.cache_line_bytes,
        flash_erase_bytes=profile.flash_erase_bytes,
        flash_write_bytes=profile.flash_write_bytes,
        rtos=profile.rtos,
        deadline_ms=profile.latency_deadline_ms,
    )


def refit(profile: HardwareProfile) -> int:
    """Judges every image on this profile anew, after it was made or changed; returns how many."""
    with transaction.atomic():
        return _fit_missing(ModelImage.objects.all(), HardwareProfile.objects.filter(pk=profile.pk))


def _fit_missing(images: Any, profiles: Any) -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_FIT_LOCK])
    rows = []
    for image in images:
        for profile in profiles:
            verdict = fit(
                image_bytes=image.size,
                arena_bytes=image.arena_bytes,
                alignment=image.alignment,
                operators=tuple(image.operators),
                profile=pipeline_profile(profile),
                runtime=image.runtime,
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


def ensure_patch(*, base: ModelImage, target: ModelImage) -> Patch:
    """The one patch of this pair, waiting to be built where it is new. Safe to call from many processes."""
    return Patch.objects.get_or_create(base=base, target=target)[0]


def build_patches_due(now: datetime, limit: int = 1) -> int:
    """Builds up to `limit` patches that wait, or whose worker was lost; returns how many it ended."""
    ended = 0
    for _ in range(limit):
        patch = _lease_patch(now)
        if patch is None:
            return ended
        if patch.state == PatchState.WAITING:
            _build_patch(patch)
        ended += 1
    return ended


def _lease_patch(now: datetime) -> Patch | None:
    with transaction.atomic():
        patch = (
            Patch.objects.select_for_update(skip_locked=True, of=("self",))
            .select_related("base", "target")
            .filter(state=PatchState.WAITING)
            .filter(Q(lease_until__isnull=True) | Q(lease_until__lt=now))
            .order_by("id")
            .first()
        )
        if patch is None:
            return None
        if patch.attempts >= MAXIMUM_ATTEMPTS:
            patch.state = PatchState.FAILED
            patch.failure = patch.failure or f"The build ended without a patch {MAXIMUM_ATTEMPTS} times."
        else:
            patch.attempts, patch.lease_until = F("attempts") + 1, now + LEASE
        patch.save(update_fields=["state", "failure", "attempts", "lease_until"])
        patch.refresh_from_db(fields=["attempts"])
    return patch


def _build_patch(patch: Patch) -> None:
    mine = Patch.objects.filter(pk=patch.pk, state=PatchState.WAITING, attempts=patch.attempts)
    began = time.monotonic()
    try:
        built = build_patch(load(patch.base.blob_id), load(patch.target.blob_id))
    except PatchFailed as error:
        _log.warning("patch_failed", patch=patch.pk, attempt=patch.attempts, reason=str(error))
        mine.update(failure=str(error), lease_until=None)
        return
    took_ms = round(1000 * (time.monotonic() - began))
    with transaction.atomic():
        blob = store(built.payload)
        mine.update(
            state=PatchState.READY, codec=int(built.codec), blob=blob, build_ms=took_ms, lease_until=None, failure=""
        )
