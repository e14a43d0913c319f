"""Which image a node would get, or why none: decided once for each kind of node, not for each node."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from django.contrib.postgres.expressions import ArraySubquery
from django.db.models import OuterRef

from devices.models import FirmwareBuild, HardwareProfile
from updates.models import Fit, ModelImage, ModelVersion
from updates.pipeline.validate import UNPROVED
from updates.profiles import compiled_refusals, fit_on

_LAST = 32_767


class NodeKind(NamedTuple):
    """All that eligibility depends on; thousands of nodes share a few of these."""

    profile_id: int
    firmware_build_id: int | None
    slot_bytes: int | None
    sram_bytes: int | None
    reserved_sram_bytes: int | None


@dataclass(frozen=True)
class Choice:
    """An image, or a cause with the sentence that has the numbers."""

    image: ModelImage | None
    cause: str = ""
    reason: str = ""


def choose(
    *, kind: NodeKind, images: Iterable[ModelImage], profile: HardwareProfile, firmware: FirmwareBuild | None
) -> Choice:
    """The first image that fits, best for the profile first, else why the first one does not.

    images: as `images_of` gives them.
    """
    images = list(images)
    if firmware is None:
        return Choice(None, "firmware-unknown", "The node has not reported its firmware build: wait for its report.")
    overrides = {
        name: value
        for name in ("slot_bytes", "sram_bytes", "reserved_sram_bytes")
        if (value := getattr(kind, name)) is not None
    }
    refusal: Choice | None = None
    for image in sorted(images, key=lambda image: _rank(image, profile)):
        if image.runtime != profile.runtime:
            continue
        if image.io_hash != firmware.io_hash:
            refusal = refusal or Choice(
                None,
                "contract-differs",
                f"Firmware {firmware.name} was built for inputs and outputs {firmware.io_hash}, the image has "
                f"{image.io_hash}: ship firmware for the new contract first.",
            )
            continue
        known = [one.measured for one in image.field_evidence.all() if one.profile_id == profile.pk]
        measured = known[0] if known else None
        result = fit_on(image, profile, measured=measured, firmware=firmware, overrides=overrides)
        if result.fits:
            return Choice(image)
        if compiled_refusals(image, profile, firmware):
            cause = "swap-refused"
        elif set(image.operators) - set(firmware.operators):
            cause = "operator-missing"
        else:
            cause = "does-not-fit"
        refusal = refusal or Choice(None, cause, " ".join(result.reasons))
    if (refusal is None or refusal.cause == "does-not-fit") and any(profile.pk in _unproved_for(one) for one in images):
        why = (
            f"The image of {images[0].version} that would suit {profile} was not proved, since nobody got it when the "
            f"version was built: judge the version again, on its page or with POST /versions/{images[0].version_id}/judge-again."
        )
        return Choice(None, "not-validated", why)
    return refusal or Choice(None, "no-image", f"No image of this version was built for {profile.runtime}.")


def _rank(image: ModelImage, profile: HardwareProfile) -> tuple[int, int]:
    """Images that were never fitted to the profile come last, in the order in which they were built."""
    ranks = [fit.rank for fit in image.fits.all() if fit.profile_id == profile.pk]
    return (ranks[0] if ranks else _LAST, image.pk)


def _unproved_for(image: ModelImage) -> list[int]:
    return list(getattr(image, "unproved_for", ()))


def images_of(version: ModelVersion) -> list[ModelImage]:
    """Images that may be shipped: validation of the exact bytes has passed. `unproved_for` of each: keys of profiles that
    would get an image of the version that was not proved (updates.judging)."""
    wanting = Fit.objects.filter(
        image__version=OuterRef("version_id"),
        rank=0,
        fits=True,
        image__validation__verdict="inconclusive",
        image__validation__reasons__contains=[UNPROVED],
    )
    proved = version.images.filter(validation__verdict="passed").select_related("version__family")
    proved = proved.annotate(unproved_for=ArraySubquery(wanting.values("profile_id")))
    return list(proved.prefetch_related("fits", "field_evidence").order_by("id"))
