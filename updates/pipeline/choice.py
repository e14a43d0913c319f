"""Which of a version's images a class of hardware gets: the most accurate that fits; the others stay for comparison."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

from updates.pipeline.types import Alternative, Choice, Fit, HeldClass, Image, Profile, TargetClass, ValidationReport

# Nearer than this, two images are as accurate as each other. Then the class that nodes hold is the better, since a patch
# between two classes is about a full image; then the frugal one.
ALIKE_DB = 0.5
_RANK = {"passed": 2, "inconclusive": 1, "failed": 0}


def _class(target: TargetClass) -> HeldClass:
    return target.precision, target.granularity


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
    *,
    contract: Collection[str] | None = None,
    held: HeldClass | None = None,
) -> Choice:
    """fits and reports by image digest. Accurate means: the better verdict, then the higher SQNR on the worst of the
    slices that all images were shown (within 0.5 dB), then the class that the profile's nodes hold already, then the
    smaller arena, then the smaller image. contract: io_hashes that firmware takes; an image with another comes after all
    that have one of these. held: precision and granularity of what most nodes of the profile run. Raises KeyError for an
    image that was not fitted to the profile or not validated."""
    noise = noise_db(reports)
    weighed = [_weigh(profile.name, image, fits[image.digest], reports[image.digest], noise) for image in images]
    foreign = {image.digest for image in images if contract is not None and image.io_hash not in contract}
    ordered = best_first(weighed, foreign, held)
    if not ordered:
        return Choice(profile.name, None, (), "No image was built.")
    first = ordered[0]
    if profile.runtime not in {image.target.runtime for image in images}:
        return Choice(profile.name, None, tuple(ordered), nothing_for(profile.runtime))
    if not first.fits:
        found = next(one for one in fits[first.digest] if one.profile == profile.name)
        return Choice(
            profile.name, None, tuple(ordered), none_fits(profile.name, len(ordered), first.target, found.reasons)
        )
    reason = (
        f"{first.target.precision} ({first.target.granularity}) is the most accurate of "
        f"{sum(one.fits for one in ordered)} images that fit {profile.name}: {first.verdict}, "
        f"{first.sqnr_db:.1f} dB on its worst slice."
    )
    return Choice(profile.name, first.digest, tuple(ordered), reason)


def nothing_for(runtime: str) -> str:
    """Why a profile of this runtime gets nothing where no image is for it."""
    return f"No image is for {runtime}: compile the network with its own tool and give the report of that."


def none_fits(profile: str, images: int, first: TargetClass, reasons: Sequence[str]) -> str:
    """Why no image fits: what is wrong with the one that would be chosen, `first`."""
    counted = f"{'The one image does not fit' if images == 1 else f'None of {images} images fits'} {profile}"
    return f"{counted}. The most accurate, {first.precision} ({first.granularity}): {' '.join(reasons)}"


def noise_db(reports: Mapping[str, ValidationReport]) -> dict[str, float]:
    """By image digest: the SQNR on the worst of the slices that all images were shown."""
    shown = [{one.name for one in report.slices} for report in reports.values()]
    common = set.intersection(*shown) if shown else set()
    return {
        digest: min((one.sqnr_db for one in report.slices if one.name in common), default=-math.inf)
        for digest, report in reports.items()
    }


def _weigh(
    profile: str, image: Image, fits: Sequence[Fit], report: ValidationReport, noise: Mapping[str, float]
) -> Alternative:
    found = next((one for one in fits if one.profile == profile), None)
    if found is None:
        raise KeyError(f"image {image.digest[:12]} was not fitted to profile {profile}")
    return Alternative(
        image.digest,
        image.target,
        found.fits,
        report.verdict,
        noise[image.digest],
        found.arena_bytes,
        found.image_bytes,
    )


def best_first(
    weighed: Sequence[Alternative], foreign: Collection[str] = (), held: HeldClass | None = None
) -> list[Alternative]:
    """As `choose` says. foreign: digests of images that firmware in the field does not take."""

    def standing(one: Alternative) -> tuple[bool, bool, int]:
        return not one.fits, one.digest in foreign, -_RANK[one.verdict]

    left = sorted(weighed, key=lambda one: (standing(one), -one.sqnr_db))
    ordered: list[Alternative] = []
    while left:
        first = left[0]
        alike = [one for one in left if standing(one) == standing(first) and one.sqnr_db >= first.sqnr_db - ALIKE_DB]
        ordered += sorted(
            alike, key=lambda one: (_class(one.target) != held, one.arena_bytes, one.image_bytes, one.digest)
        )
        left = [one for one in left if one not in alike]
    return ordered
