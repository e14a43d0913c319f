"""Which of a version's images a class of hardware gets: the most accurate that fits; the others stay for comparison."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from updates.pipeline.types import Fit, Image, Profile, TargetClass, ValidationReport

_RANK = {"passed": 2, "inconclusive": 1, "failed": 0}


@dataclass(frozen=True)
class Alternative:
    """An image that was weighed: whether it fits the profile, and its worst slice. `sqnr_db`: the lowest of all slices."""

    digest: str
    target: TargetClass
    fits: bool
    verdict: str
    sqnr_db: float
    arena_bytes: int
    image_bytes: int


@dataclass(frozen=True)
class Choice:
    """digest: the chosen image, None where none fits. alternatives: all images, best first, the chosen one too."""

    profile: str
    digest: str | None
    alternatives: tuple[Alternative, ...]
    reason: str


def candidates(alignment: int = 16) -> tuple[TargetClass, ...]:
    """What is worth building: int8 first, which every kernel library runs."""
    return (
        TargetClass(alignment=alignment),
        TargetClass(granularity="fc-per-channel", alignment=alignment),
        TargetClass(precision="int16x8", alignment=alignment),
        TargetClass(precision="int4", alignment=alignment),
    )


def choose(
    profile: Profile,
    images: Sequence[Image],
    fits: Mapping[str, Sequence[Fit]],
    reports: Mapping[str, ValidationReport],
) -> Choice:
    """fits and reports by image digest. Accurate means: the better verdict, then the higher SQNR on the worst slice (to
    0.1 dB), then the smaller arena, then the smaller image. Raises KeyError for an image that was not fitted to the
    profile or not validated."""
    weighed = [_weigh(profile.name, image, fits[image.digest], reports[image.digest]) for image in images]
    ordered = sorted(weighed, key=_key)
    if not ordered:
        return Choice(profile.name, None, (), "No image was built.")
    first = ordered[0]
    if not first.fits:
        return Choice(profile.name, None, tuple(ordered), f"None of {len(ordered)} images fits {profile.name}.")
    reason = (
        f"{first.target.precision} ({first.target.granularity}) is the most accurate of "
        f"{sum(one.fits for one in ordered)} images that fit {profile.name}: {first.verdict}, "
        f"{first.sqnr_db:.1f} dB on its worst slice."
    )
    return Choice(profile.name, first.digest, tuple(ordered), reason)


def _weigh(profile: str, image: Image, fits: Sequence[Fit], report: ValidationReport) -> Alternative:
    found = next((one for one in fits if one.profile == profile), None)
    if found is None:
        raise KeyError(f"image {image.digest[:12]} was not fitted to profile {profile}")
    worst = min((one.sqnr_db for one in report.slices), default=-math.inf)
    return Alternative(
        image.digest, image.target, found.fits, report.verdict, worst, found.arena_bytes, found.image_bytes
    )


def _key(one: Alternative) -> tuple[bool, int, float, int, int, str]:
    noise = round(one.sqnr_db, 1) if math.isfinite(one.sqnr_db) else one.sqnr_db
    return not one.fits, -_RANK[one.verdict], -noise, one.arena_bytes, one.image_bytes, one.digest
