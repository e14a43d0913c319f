"""What is done with families, versions and patches. Builds stand in updates.builds, campaigns in updates.campaigns."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any

import structlog
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.db.models import Q, QuerySet

from fleet.audit.models import record
from fleet.blobs.models import forget_unused, load, store
from fleet.operations.services import observe
from fleet.operations.wakeups import wake
from updates.leases import MAXIMUM_ATTEMPTS, Work, work_off
from updates.models import ModelFamily, ModelVersion, Patch
from updates.patches.codec import PatchFailed, build_patch
from updates.patches.decoders import READS
from updates.pipeline.arrays import MAXIMUM_UPLOAD_BYTES
from updates.pipeline.types import MAXIMUM_ONNX_BYTES, Signal, ValidationLimits
from updates.states import PatchState

_log = structlog.get_logger(__name__)


class UploadRefused(Exception):
    """An upload that is not stored. `field` is the request's; message and fix are sentences."""

    def __init__(self, field: str, message: str, fix: str) -> None:
        super().__init__(field, message, fix)
        self.field, self.message, self.fix = field, message, fix

    def __str__(self) -> str:
        return f"{self.field}: {self.message} {self.fix}"


class UploadConflict(UploadRefused):
    """The upload contradicts a version that exists: versions never change."""


class PatchNotFailed(Exception):
    """Only a patch that failed can be built again."""


def ensure_family(
    *,
    name: str,
    preprocessing: str = "none",
    class_names: list[str] | None = None,
    limits: dict[str, Any] | None = None,
    task: str = "auto",
    signal: dict[str, Any] | None = None,
    actor: str,
) -> tuple[ModelFamily, bool]:
    """The family and whether it is new. Raises UploadRefused for bad fields, UploadConflict where it exists otherwise.

    preprocessing names what the firmware does to raw data; it is part of the input and output contract. limits are
    field names and values of updates.pipeline.types.ValidationLimits, signal those of Signal; task is "auto" or one of
    TASKS.
    """
    try:
        ValidationLimits.of(limits or {})
        Signal.of(signal or {})
    except ValueError as error:
        field, _, message = str(error).partition(": ")
        said, _, fix = message.partition("; ")
        raise UploadRefused(field, f"{said}.", f"{fix[:1].upper()}{fix[1:]}.") from error
    wanted: dict[str, Any] = {
        "preprocessing": preprocessing,
        "class_names": class_names or [],
        "limits": limits or {},
        "task": task,
        "signal": signal or {},
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
                field, f"Family {name} has {getattr(family, field)!r}, not {value!r}.", "Use another family name."
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
            raise UploadRefused(field, "The file is empty.", "Send its bytes.")
        if len(data) > limit:
            raise UploadRefused(field, f"{len(data)} bytes exceed the limit of {limit}.", "Send a smaller file.")
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
            wake("updates.tasks.build_due")
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
                f"Version {version} exists with other files, and a version never changes.",
                "Choose a new version name.",
            )
        raise UploadConflict("onnx", f"These three files already are version {version}.", "Use that version.")
    return None


def _check(instance: Any, field: str, *, exclude: set[str] | None = None, only: set[str] | None = None) -> None:
    names = {part.name for part in instance._meta.fields}
    try:
        instance.clean_fields(exclude=names - only if only else exclude)
    except ValidationError as error:
        key, messages = next(iter(error.message_dict.items()))
        raise UploadRefused(
            field if key == "name" else key,
            messages[0],
            f"Send at most {instance._meta.get_field('name').max_length} letters, digits, hyphens or underscores."
            if key == "name"
            else "Correct it.",
        ) from error


def ensure_patches(*, wanted: Collection[tuple[int, int, str]]) -> list[int]:
    """Keys of the one patch of each (base, target, decoder), images by key, in that order; new ones wait to be built.

    One statement, safe to call from many processes. Until the caller's transaction ends, none of them is collected.
    """
    rows = [Patch(base_id=base, target_id=target, decoder=decoder) for base, target, decoder in sorted(set(wanted))]
    # An upsert locks what is there: the collector deletes either before it, and the row is made anew, or not at all.
    stored = Patch.objects.bulk_create(
        rows,
        update_conflicts=True,
        update_fields=["unneeded_since"],
        unique_fields=["base", "target", "decoder"],
    )
    return [patch.pk for patch in stored]


@transaction.atomic
def build_patch_again(*, patch_id: int, actor: str) -> Patch:
    """Puts a failed patch back in the queue with all its attempts. Raises PatchNotFailed for any other."""
    patch = Patch.objects.select_for_update().get(pk=patch_id)
    if patch.state != PatchState.FAILED:
        raise PatchNotFailed(f"Patch {patch.pk} is {patch.state}, so there is nothing to build again.")
    before = {"state": str(patch.state), "attempts": patch.attempts, "failure": patch.failure}
    patch.state, patch.attempts, patch.lease_until, patch.failure = PatchState.WAITING, 0, None, ""
    patch.save(update_fields=["state", "attempts", "lease_until", "failure"])
    record(
        actor=actor,
        action="patch.build_again",
        subject=patch,
        before=before,
        after={"state": str(patch.state), "attempts": 0},
    )
    return patch


def build_patches_due(now: datetime, limit: int = 1) -> int:
    """Builds up to `limit` patches that wait, or whose worker was lost; returns how many it ended."""
    return work_off(_BUILDING_PATCHES, now, limit)


def _give_up_patch(patch: Patch) -> None:
    patch.state, patch.lease_until = PatchState.FAILED, None
    patch.failure = patch.failure or f"The build ended without a patch {MAXIMUM_ATTEMPTS} times."
    patch.save(update_fields=["state", "lease_until", "failure"])


def _build_patch(patch: Patch, mine: QuerySet[Patch], now: datetime) -> None:
    began = time.monotonic()
    try:
        built = build_patch(load(patch.base.blob_id), load(patch.target.blob_id), decodable=READS[patch.decoder])
    except PatchFailed as error:
        _log.warning("patch_failed", patch=patch.pk, attempt=patch.attempts, reason=str(error))
        mine.update(failure=str(error), lease_until=None)
        return
    took_ms = round(1000 * (time.monotonic() - began))
    with transaction.atomic():
        blob = store(built.payload)
        observe("build_seconds", "patch", took_ms / 1000)
        taken = mine.update(
            state=PatchState.READY,
            codec=int(built.codec),
            blob=blob,
            build_ms=took_ms,
            built_at=now + timedelta(milliseconds=took_ms),
            lease_until=None,
            failure="",
        )
        if not taken:  # another worker took it up, or it was collected meanwhile
            forget_unused([blob.digest])


_BUILDING_PATCHES = Work(
    Patch.objects.select_related("base", "target").filter(state=PatchState.WAITING), _build_patch, _give_up_patch
)
