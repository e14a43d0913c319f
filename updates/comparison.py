"""Two versions of one family side by side: bytes, arena, fit, accuracy slice by slice, contract and patches."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import Any

from devices.models import FirmwareBuild, HardwareProfile
from updates import selectors
from updates.models import Fit, ModelImage, ModelVersion
from updates.patch_catalogue import PatchRow, patches_between
from updates.pipeline.statistics import wilson


class NotComparable(ValueError):
    """These versions cannot stand side by side; the message says why."""


@dataclass(frozen=True)
class ImagePair:
    """The images of one target class; None where a version has none."""

    runtime: str
    precision: str
    granularity: str
    a: ModelImage | None
    b: ModelImage | None

    @property
    def same_contract(self) -> bool:
        return self.a is not None and self.b is not None and self.a.io_hash == self.b.io_hash

    @property
    def new_operators(self) -> list[str]:
        """What firmware must have for `b` and not for `a`."""
        return sorted(set(self.b.operators) - set(self.a.operators)) if self.a and self.b else []

    @property
    def dropped_operators(self) -> list[str]:
        return sorted(set(self.a.operators) - set(self.b.operators)) if self.a and self.b else []


@dataclass(frozen=True)
class ProfileFits:
    profile: HardwareProfile
    a: Fit | None
    b: Fit | None


@dataclass(frozen=True)
class SliceDifference:
    """Quantized accuracy of `b` less that of `a` with its 95 % interval, fractions. None where either has no classes
    or no such slice."""

    name: str
    n_a: int | None
    n_b: int | None
    accuracy_a: float | None
    accuracy_b: float | None
    difference: float | None
    low: float | None
    high: float | None

    @property
    def finding(self) -> str:
        """better, worse, or unsure: the interval holds zero."""
        if self.low is None or self.high is None:
            return "unknown"
        return "better" if self.low > 0 else "worse" if self.high < 0 else "unsure"


@dataclass(frozen=True)
class FirmwareTakes:
    """Whether firmware of this build has the operators and the contract of an image of each version."""

    build: FirmwareBuild
    a: bool
    b: bool


@dataclass(frozen=True)
class Comparison:
    a: ModelVersion
    b: ModelVersion
    images: list[ImagePair]
    profiles: list[ProfileFits]
    slices: list[SliceDifference]
    firmware: list[FirmwareTakes]
    patches: list[PatchRow]

    @property
    def same_evaluation(self) -> bool:
        return self.a.evaluation_id == self.b.evaluation_id


def difference_interval(hits_a: int, n_a: int, hits_b: int, n_b: int) -> tuple[float, float]:
    """95 % interval of the difference of two proportions, b less a (R. G. Newcombe, Stat. Med. 17, 1998, method 10).

    Takes the samples as independent: on the same samples, decided mostly alike, it is wider than need be.
    """
    share_a, share_b = hits_a / n_a, hits_b / n_b
    (low_a, high_a), (low_b, high_b) = wilson(hits_a, n_a), wilson(hits_b, n_b)
    difference = share_b - share_a
    return (
        difference - sqrt((share_b - low_b) ** 2 + (high_a - share_a) ** 2),
        difference + sqrt((high_b - share_b) ** 2 + (share_a - low_a) ** 2),
    )


def compare(a_id: int, b_id: int) -> Comparison:
    """Raises ModelVersion.DoesNotExist, and NotComparable for one version twice or two families."""
    if a_id == b_id:
        raise NotComparable("A version differs in nothing from itself: choose two.")
    a, b = selectors.version(a_id), selectors.version(b_id)
    if a.family_id != b.family_id:
        raise NotComparable(
            f"{a} and {b} are of two families, whose inputs and decisions mean different things: choose two of one."
        )
    pairs = _pairs(list(a.images.all()), list(b.images.all()))
    return Comparison(
        a=a,
        b=b,
        images=pairs,
        profiles=_profiles(pairs),
        slices=_slices(pairs),
        firmware=_firmware(pairs),
        patches=patches_between(list(a.images.all()), list(b.images.all())),
    )


def _pairs(ones: list[ModelImage], others: list[ModelImage]) -> list[ImagePair]:
    """Alignment does not tell images apart here: it follows the widest profile of its day."""

    def keyed(images: list[ModelImage]) -> dict[tuple[str, str, str], ModelImage]:
        return {(image.runtime, image.precision, image.granularity): image for image in images}

    a, b = keyed(ones), keyed(others)
    return [ImagePair(*key, a.get(key), b.get(key)) for key in sorted({*a, *b})]


def _profiles(pairs: list[ImagePair]) -> list[ProfileFits]:
    """The fit of a version on a profile is that of the image which the profile gets, else of the one that comes nearest."""
    best: tuple[dict[int, Fit], dict[int, Fit]] = ({}, {})
    for pair in pairs:
        for side, image in zip(best, (pair.a, pair.b), strict=True):
            for fit in image.fits.all() if image else ():
                known = side.get(fit.profile_id)
                if known is None or (not fit.fits, fit.rank) < (not known.fits, known.rank):
                    side[fit.profile_id] = fit
    profiles = {fit.profile_id: fit.profile for side in best for fit in side.values()}
    ordered = sorted(profiles.items(), key=lambda item: item[1].name)
    return [ProfileFits(profile, best[0].get(pk), best[1].get(pk)) for pk, profile in ordered]


def _slices(pairs: list[ImagePair]) -> list[SliceDifference]:
    """Of one target class that both have, the largest loss first."""
    # Proved on every slice in both, if there is one: what nobody gets saw the uploaded slices alone.
    alike = [pair for pair in pairs if pair.a and pair.b]
    both = max(alike, key=lambda pair: min(len(_report(pair.a)), len(_report(pair.b))), default=None)
    if both is None:
        return []
    a, b = ({one["name"]: one for one in _report(image)} for image in (both.a, both.b))
    rows = [_slice(name, a.get(name, {}), b.get(name, {})) for name in {**a, **b}]
    return sorted(rows, key=lambda row: (row.difference is None, row.difference or 0.0, row.name))


def _report(image: ModelImage | None) -> list[dict[str, Any]]:
    return list(image.validation.slices) if image and hasattr(image, "validation") else []


def _slice(name: str, a: dict[str, Any], b: dict[str, Any]) -> SliceDifference:
    accuracy_a, accuracy_b = a.get("accuracy_int8"), b.get("accuracy_int8")
    difference = low = high = None
    if accuracy_a is not None and accuracy_b is not None:
        difference = accuracy_b - accuracy_a
        low, high = difference_interval(round(accuracy_a * a["n"]), a["n"], round(accuracy_b * b["n"]), b["n"])
    return SliceDifference(name, a.get("n"), b.get("n"), accuracy_a, accuracy_b, difference, low, high)


def _firmware(pairs: list[ImagePair]) -> list[FirmwareTakes]:
    def takes(build: FirmwareBuild, images: list[ModelImage | None]) -> bool:
        return any(
            image is not None
            and image.runtime == build.runtime
            and image.io_hash == build.io_hash
            and set(image.operators) <= set(build.operators)
            for image in images
        )

    return [
        FirmwareTakes(build, takes(build, [pair.a for pair in pairs]), takes(build, [pair.b for pair in pairs]))
        for build in FirmwareBuild.objects.order_by("name")[:200]
    ]
