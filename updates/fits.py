"""Which image fits which profile, and in which order a profile would have them."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from django.db import connection, transaction
from django.db.models import QuerySet

from devices.models import FirmwareBuild, HardwareProfile
from updates import models
from updates.models import ModelImage
from updates.pipeline.choice import best_first
from updates.pipeline.types import Alternative, Fit, HeldClass, TargetClass
from updates.profiles import fit_on
from updates.selectors import held_classes

# Serializes "fit this image to all profiles" with "fit all images to this profile": neither misses what the other adds.
_FIT_LOCK = 0x666974


def lock_fits() -> None:
    """Until the caller's transaction ends, nobody else writes verdicts, or what they go by."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_FIT_LOCK])


def refit(profile: HardwareProfile) -> int:
    """Judges every image on this profile anew, after it was made or changed; returns how many."""
    with transaction.atomic():
        return fit_images(ModelImage.objects.all(), HardwareProfile.objects.filter(pk=profile.pk))


def fit_again(image: ModelImage) -> int:
    """Judges the images of this one's version on every profile, in the caller's transaction; returns how many verdicts."""
    return fit_images(ModelImage.objects.filter(version=image.version_id), HardwareProfile.objects.all())


def fit_images(images: QuerySet[ModelImage], profiles: QuerySet[HardwareProfile]) -> int:
    """Of whole versions, whose images are ranked against each other; returns how many verdicts were written."""
    lock_fits()
    firmware = set(FirmwareBuild.objects.values_list("io_hash", flat=True))
    of_version: dict[int, list[ModelImage]] = defaultdict(list)
    rows_of_images = images.select_related("validation", "version").defer("validation__slices")
    for image in rows_of_images.prefetch_related("field_evidence").order_by("id"):
        of_version[image.version_id].append(image)
    judged_on = list(profiles)
    held = held_classes(judged_on) if of_version else {}
    rows = [
        row
        for profile in judged_on
        for version_images in of_version.values()
        for row in _ranked(version_images, profile, firmware, held)
    ]
    models.Fit.objects.bulk_create(
        rows,
        update_conflicts=True,
        unique_fields=["image", "profile"],
        update_fields=["fits", "rank", "numbers", "reasons"],
        batch_size=1000,
    )
    return len(rows)


def _ranked(
    images: Sequence[ModelImage],
    profile: HardwareProfile,
    firmware: set[str],
    held: Mapping[tuple[int, int], HeldClass],
) -> list[models.Fit]:
    verdicts = {image.digest: _fit(image, profile) for image in images}
    contract = {image.io_hash for image in images} & firmware or {images[0].io_hash}
    foreign = {image.digest for image in images if image.io_hash not in contract}
    alternatives = [_alternative(image, verdicts[image.digest]) for image in images]
    order = best_first(alternatives, foreign, held.get((profile.pk, images[0].version.family_id)))
    # What was chosen for its small patch stays chosen where it fits: that it is not the least noisy was the point.
    near = {image.digest for image in images if image.facts.get("near_deployed")}
    order.sort(key=lambda one: not (one.fits and one.digest in near))
    rank = {one.digest: place for place, one in enumerate(order)}
    rows = []
    for image in images:
        numbers = asdict(verdicts[image.digest])
        reasons, fits = list(numbers.pop("reasons")), numbers.pop("fits")
        rows.append(
            models.Fit(
                image=image, profile=profile, fits=fits, rank=rank[image.digest], numbers=numbers, reasons=reasons
            )
        )
    return rows


def _fit(image: ModelImage, profile: HardwareProfile) -> Fit:
    known = [one.measured for one in image.field_evidence.all() if one.profile_id == profile.pk]
    return fit_on(image, profile, measured=known[0] if known else None)


def _alternative(image: ModelImage, verdict: Fit) -> Alternative:
    noise = image.facts.get("noise_db", -math.inf)
    report = getattr(image, "validation", None)
    return Alternative(
        image.digest,
        TargetClass(image.runtime, image.precision, image.granularity, image.alignment),
        verdict.fits,
        report.verdict if report is not None else "inconclusive",
        math.inf if noise is None else noise,
        verdict.arena_bytes,
        verdict.image_bytes,
    )
