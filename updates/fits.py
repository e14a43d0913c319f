"""Which image fits which profile, and in which order a profile would have them."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict

from django.db import connection, transaction
from django.db.models import QuerySet

from devices.models import FirmwareBuild, HardwareProfile
from updates import models
from updates.models import ModelImage
from updates.pipeline.choice import best_first
from updates.pipeline.fit import fit
from updates.pipeline.types import Alternative, Fit, TargetClass
from updates.profiles import arena_evidence, compiled_refusals, latency_estimate, pipeline_profile

# Serializes "fit this image to all profiles" with "fit all images to this profile": neither misses what the other adds.
_FIT_LOCK = 0x666974


def refit(profile: HardwareProfile) -> int:
    """Judges every image on this profile anew, after it was made or changed; returns how many."""
    with transaction.atomic():
        return fit_images(ModelImage.objects.all(), HardwareProfile.objects.filter(pk=profile.pk))


def fit_again(image: ModelImage) -> int:
    """Judges the images of this one's version on every profile, in the caller's transaction; returns how many verdicts."""
    return fit_images(ModelImage.objects.filter(version=image.version_id), HardwareProfile.objects.all())


def fit_images(images: QuerySet[ModelImage], profiles: QuerySet[HardwareProfile]) -> int:
    """Of whole versions, whose images are ranked against each other; returns how many verdicts were written."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_FIT_LOCK])
    firmware = set(FirmwareBuild.objects.values_list("io_hash", flat=True))
    of_version: dict[int, list[ModelImage]] = defaultdict(list)
    for image in images.select_related("validation").defer("validation__slices").order_by("id"):
        of_version[image.version_id].append(image)
    rows = [
        row
        for profile in profiles
        for version_images in of_version.values()
        for row in _ranked(version_images, profile, firmware)
    ]
    models.Fit.objects.bulk_create(
        rows,
        update_conflicts=True,
        unique_fields=["image", "profile"],
        update_fields=["fits", "rank", "numbers", "reasons"],
        batch_size=1000,
    )
    return len(rows)


def _ranked(images: Sequence[ModelImage], profile: HardwareProfile, firmware: set[str]) -> list[models.Fit]:
    verdicts = {image.digest: _fit(image, profile) for image in images}
    contract = {image.io_hash for image in images} & firmware or {images[0].io_hash}
    foreign = {image.digest for image in images if image.io_hash not in contract}
    order = best_first([_alternative(image, verdicts[image.digest]) for image in images], foreign)
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
    return fit(
        image_bytes=image.size,
        arena=arena_evidence(image),
        alignment=image.alignment,
        operators=tuple(image.operators),
        profile=pipeline_profile(profile),
        runtime=image.runtime,
        latency=latency_estimate(image, profile),
        refusals=compiled_refusals(image, profile),
    )


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
