"""Hardware profiles and images of the database as the pipeline takes them, and the fit of one on the other."""

from __future__ import annotations

from collections.abc import Mapping

from devices.models import FirmwareBuild, HardwareProfile
from updates.models import ModelImage
from updates.pipeline.choice import candidates
from updates.pipeline.evidence import ArenaEvidence, Measured
from updates.pipeline.fit import fit
from updates.pipeline.latency import estimate
from updates.pipeline.reports.swap import series_refusal, swap_refusals
from updates.pipeline.reports.types import RuntimeReport
from updates.pipeline.types import Fit, Latency, Profile, TargetClass, Work


def pipeline_profile(profile: HardwareProfile) -> Profile:
    """The pipeline knows no database."""
    return Profile(
        name=profile.name,
        core=profile.core,
        chip=profile.chip,
        clock_hz=profile.clock_hz,
        runtime=profile.runtime,
        kernel_library=profile.kernel_library,
        slot_bytes=profile.slot_bytes,
        sram_bytes=profile.sram_bytes,
        reserved_sram_bytes=profile.reserved_sram_bytes,
        arena_fraction=profile.arena_fraction,
        alignment=profile.alignment,
        cache_line_bytes=profile.cache_line_bytes,
        flash_erase_bytes=profile.flash_erase_bytes,
        flash_write_bytes=profile.flash_write_bytes,
        rtos=profile.rtos,
        latency_deadline_ms=profile.latency_deadline_ms,
        slot_read_bytes_per_second=profile.slot_read_bytes_per_second,
    )


def targets_for(profiles: tuple[Profile, ...]) -> tuple[TargetClass, ...]:
    """What is worth building for these; one alignment for all: the widest is good for the others too."""
    ours = [profile for profile in profiles if profile.runtime == "tflm"]
    return candidates(max([16, *(max(profile.alignment, profile.cache_line_bytes) for profile in ours)]))


def fit_on(
    image: ModelImage,
    profile: HardwareProfile,
    *,
    measured: Measured | None,
    firmware: FirmwareBuild | None = None,
    overrides: Mapping[str, int] | None = None,
) -> Fit:
    """May this image run on the profile, with all that is known of both? measured: what nodes of the profile say of it.

    firmware and overrides: of a node, or of many that are alike; without them the verdict is the profile's own.
    """
    return fit(
        image_bytes=image.size,
        arena=arena_evidence(image),
        alignment=image.alignment,
        operators=tuple(image.operators),
        profile=pipeline_profile(profile),
        runtime=image.runtime,
        overrides=overrides,
        available_operators=frozenset(firmware.operators) if firmware else None,
        firmware_arena_bytes=firmware.arena_bytes if firmware else None,
        decoder_ram_bytes=firmware.decoder_ram_bytes if firmware else 0,
        latency=latency_estimate(image, profile),
        measured=measured,
        refusals=compiled_refusals(image, profile, firmware),
    )


def arena_evidence(image: ModelImage) -> ArenaEvidence:
    """What is known of the arena that this image needs before a node has run it."""
    if report := report_of(image):
        return ArenaEvidence(None, compiled_bytes=report.ram_bytes)
    return ArenaEvidence(image.arena_bytes, image.facts.get("arena_estimates", {}), precision=image.precision)


def report_of(image: ModelImage) -> RuntimeReport | None:
    """What its compiler said of it; None for an image of ours."""
    document = image.facts.get("report")
    return RuntimeReport.of(document) if document else None


def compiled_refusals(
    image: ModelImage, profile: HardwareProfile, firmware: FirmwareBuild | None = None
) -> tuple[str, ...]:
    """Why a compiled image may not go onto this chip or, where that is known, into this firmware; empty for ours."""
    report = report_of(image)
    if report is None:
        return ()
    series = series_refusal(report, chip=profile.chip)
    found = () if series is None else (series,)
    if firmware is None or report.form == "relocatable":
        return found
    if firmware.network_report is None:
        unknown = (
            f"What was compiled into firmware {firmware} is not known, so its weights cannot be exchanged: send that "
            f"network's report with POST /firmware-builds/{firmware}/network-report."
        )
        return (*found, unknown)
    return (*found, *swap_refusals(RuntimeReport.of(firmware.network_report), report))


def latency_estimate(image: ModelImage, profile: HardwareProfile) -> Latency | None:
    """Of one inference; None for an image that was stored before its work was counted."""
    work = tuple(Work(**one) for one in image.facts.get("work", ()))
    return estimate(work, pipeline_profile(profile), precision=image.precision) if work else None
