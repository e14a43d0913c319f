"""May this image run on that hardware? Plain arithmetic on measured numbers, callable for one node alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from updates.pipeline.evidence import ArenaEvidence, Measured
from updates.pipeline.latency import deadline_reason, judged, miss_reason
from updates.pipeline.types import Fit, Latency, Profile


def fit(
    *,
    image_bytes: int,
    arena: ArenaEvidence,
    alignment: int,
    operators: tuple[str, ...],
    profile: Profile,
    runtime: str = "tflm",
    overrides: Mapping[str, int] | None = None,
    available_operators: frozenset[str] | None = None,
    firmware_arena_bytes: int | None = None,
    latency: Latency | None = None,
    measured: Measured | None = None,
    refusals: Sequence[str] = (),
    decoder_ram_bytes: int = 0,
) -> Fit:
    """All sizes in bytes.

    overrides: a node's own slot_bytes, sram_bytes or reserved_sram_bytes; they beat the profile's. available_operators:
    the firmware's op set; None means not known, and is not judged. firmware_arena_bytes: the arena that the firmware
    was built with; it cannot grow with a new image, so it bounds the arena besides the profile's limit. latency: the
    estimate of one inference, held to the profile's deadline; None is not judged. measured: what nodes of the profile that
    run the image say: their arena joins the evidence, their p99 takes the place of the estimate, and where there is a
    deadline one miss is too many. refusals: what the caller knows against it besides.
    decoder_ram_bytes: of the firmware's patch decoder, which works while the old image goes on deciding. A shadow trial
    takes no more than that: both images run in one arena, one after the other.
    Raises ValueError for an unknown override.
    """
    own = dict(overrides or {})
    unknown = own.keys() - {"slot_bytes", "sram_bytes", "reserved_sram_bytes"}
    if unknown:
        raise ValueError(f"overrides: {sorted(unknown)} unknown; use slot_bytes, sram_bytes, reserved_sram_bytes")
    slot = own.get("slot_bytes", profile.slot_bytes)
    sram = own.get("sram_bytes", profile.sram_bytes)
    reserved = own.get("reserved_sram_bytes", profile.reserved_sram_bytes)
    limit = max(0, int((sram - reserved) * profile.arena_fraction))
    if measured is not None:
        arena = replace(arena, reported_bytes=measured.arena_bytes)
        latency = judged(latency, measured, profile)
    arena_bytes, evidence = arena.needed(kernel_library=profile.kernel_library)
    reasons = list(refusals)
    if runtime != profile.runtime:
        reasons.append(f"The image is for {runtime}, the profile runs {profile.runtime}: build for {profile.runtime}.")
    if image_bytes > slot:
        reasons.append(
            f"The image has {image_bytes} bytes, the slot {slot}: make the model {image_bytes - slot} bytes smaller."
        )
    if arena_bytes > limit:
        reasons.append(
            f"The arena needs {arena_bytes} bytes, {limit} are allowed ({profile.arena_fraction:.0%} of {sram} bytes "
            f"of SRAM less {reserved} reserved): make the largest layers {arena_bytes - limit} bytes smaller."
        )
    if firmware_arena_bytes is not None and arena_bytes > firmware_arena_bytes:
        reasons.append(
            f"The arena needs {arena_bytes} bytes, the firmware was built with {firmware_arena_bytes}: make the "
            f"largest layers smaller or ship firmware with an arena of {arena_bytes} bytes."
        )
    available = max(0, sram - reserved)
    if decoder_ram_bytes and arena_bytes + decoder_ram_bytes > available:
        reasons.append(
            f"Arena and patch decoder need {arena_bytes} + {decoder_ram_bytes} bytes, {available} bytes of SRAM are left: "
            f"make the largest layers {arena_bytes + decoder_ram_bytes - available} bytes smaller."
        )
    wanted = max(profile.alignment, profile.cache_line_bytes)
    if alignment % wanted:
        reasons.append(
            f"The image is aligned to {alignment} bytes, the profile needs {wanted}: "
            f"build for a target class with alignment {wanted}."
        )
    missing = sorted(set(operators) - available_operators) if available_operators is not None else []
    if missing:
        reasons.append(
            f"The firmware lacks {len(missing)} of the image's {len(operators)} operators, {', '.join(missing)}: "
            "register them in the firmware or replace them in the model."
        )
    if latency is not None and (late := deadline_reason(latency, profile)) is not None:
        reasons.append(late)
    if (missed := miss_reason(measured, profile)) is not None:
        reasons.append(missed)
    bound = limit if firmware_arena_bytes is None else min(limit, firmware_arena_bytes)
    return Fit(
        profile=profile.name,
        fits=not reasons,
        image_bytes=image_bytes,
        slot_bytes=slot,
        arena_bytes=arena_bytes,
        arena_limit_bytes=bound,
        evidence=evidence,
        arena_by_evidence=arena.ladder(kernel_library=profile.kernel_library),
        reasons=tuple(reasons),
        latency=latency,
        available_sram_bytes=available,
        decoder_ram_bytes=decoder_ram_bytes,
        both_slots_bytes=2 * slot,
        measured=measured,
    )
