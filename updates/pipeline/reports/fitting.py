"""A report of a graph compiler held against a profile: the same fit as of an image that we built, and the same verdict."""

from __future__ import annotations

from collections.abc import Sequence

from updates.pipeline.reports.st_validation import Evaluation
from updates.pipeline.reports.swap import series_refusal
from updates.pipeline.reports.types import RuntimeReport
from updates.pipeline.types import Fit, Profile, ValidationLimits, ValidationReport

EVIDENCE = "compiler-report"


def report_fit(report: RuntimeReport, profile: Profile, *, chip: str = "") -> Fit:
    """A weights slot is held against the weights alone: kernels and toolchain are in the firmware already. A relocatable
    binary is the slot. RAM is all that the compiled network takes. chip: as in `stm32u545re`; empty: not judged."""
    limit = profile.arena_limit_bytes
    reasons = []
    if report.runtime != profile.runtime:
        reasons.append(
            f"The report is of {report.runtime}, the profile runs {profile.runtime}: compile for {profile.runtime}."
        )
    if (other := series_refusal(report, chip=chip)) is not None:
        reasons.append(other)
    if report.slot_bytes > profile.slot_bytes:
        over = report.slot_bytes - profile.slot_bytes
        reasons.append(
            f"The slot's content has {report.slot_bytes} bytes, the slot {profile.slot_bytes}: make the model {over} "
            "bytes smaller."
        )
    if report.ram_bytes > limit:
        reasons.append(
            f"The network needs {report.ram_bytes} bytes of RAM, {limit} are allowed ({profile.arena_fraction:.0%} of "
            f"{profile.sram_bytes} bytes of SRAM less {profile.reserved_sram_bytes} reserved): make the largest layers "
            f"{report.ram_bytes - limit} bytes smaller."
        )
    return Fit(
        profile=profile.name,
        fits=not reasons,
        image_bytes=report.slot_bytes,
        slot_bytes=profile.slot_bytes,
        arena_bytes=report.ram_bytes,
        arena_limit_bytes=limit,
        evidence=EVIDENCE,
        arena_by_evidence={EVIDENCE: report.ram_bytes},
        reasons=tuple(reasons),
    )


def judged(rows: Sequence[Evaluation], limits: ValidationLimits) -> ValidationReport:
    """What `stedgeai validate` found, held to the owner's limits: the C model on the chip against the original."""
    original = next((row for row in rows if row.model.lower().startswith("original")), None)
    compiled = next((row for row in rows if row.on_target), None) or next(
        (row for row in rows if "c-model" in row.model.lower()), None
    )
    if compiled is None:
        return ValidationReport("inconclusive", (), ("The report has no row of the C model: run stedgeai validate.",))
    reasons = []
    if not compiled.on_target:
        reasons.append("The report is of the C model on a computer: run stedgeai validate on the target.")
    if (compiled.samples or 0) < limits.minimum_samples:
        reasons.append(f"Too few samples: {compiled.samples or 0}, {limits.minimum_samples:g} are needed.")
    if original is None or original.accuracy is None or compiled.accuracy is None:
        return ValidationReport("inconclusive", (), (*reasons, "The report has no accuracy of both models."))
    if original.accuracy - compiled.accuracy > limits.maximum_accuracy_drop + 1e-9:
        fell = (
            f"Accuracy falls from {original.accuracy:.3f} to {compiled.accuracy:.3f} (n = {compiled.samples}), "
            f"a fall of {limits.maximum_accuracy_drop:g} is allowed."
        )
        return ValidationReport("failed", (), (fell, *reasons))
    return ValidationReport("inconclusive" if reasons else "passed", (), tuple(reasons))
