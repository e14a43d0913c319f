"""Reports of graph compilers beside an evaluation: for profiles whose runtime takes no image of ours. No database."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from updates.pipeline.document import overall, plain
from updates.pipeline.evidence import ArenaEvidence
from updates.pipeline.fit import fit
from updates.pipeline.reports import read_report, st_validation
from updates.pipeline.reports.swap import series_refusal, swap_refusals
from updates.pipeline.reports.types import ReportInvalid, RuntimeReport
from updates.pipeline.reports.verdict import EvaluationVerdict, judge_evaluations
from updates.pipeline.types import Fit, Profile, ValidationLimits, ValidationReport


@dataclass(frozen=True)
class ProfileReports:
    """Of one profile: the compiler's report of the new network, the one that the firmware was built with, and what the
    tool's own validation found. digest: of the new report's bytes."""

    profile: Profile
    report: RuntimeReport
    digest: str
    deployed: RuntimeReport | None
    validation: EvaluationVerdict

    @property
    def fit(self) -> Fit:
        """A weights slot is held against the weights alone: kernels and toolchain are in the firmware already."""
        series = series_refusal(self.report, chip=self.profile.chip)
        return fit(
            image_bytes=self.report.slot_bytes,
            arena=ArenaEvidence(None, compiled_bytes=self.report.ram_bytes),
            alignment=0,
            operators=(),
            profile=self.profile,
            runtime=self.report.runtime,
            refusals=() if series is None else (series,),
        )

    @property
    def swap_refusals(self) -> tuple[str, ...]:
        """Why the weights may not be exchanged in firmware built with `deployed`; empty where they may or none is given."""
        return () if self.deployed is None else swap_refusals(self.deployed, self.report)


def profile_reports(
    profile: Profile, *, report: bytes, deployed: bytes | None, validation: bytes | None, limits: ValidationLimits
) -> ProfileReports:
    """Raises ReportInvalid."""
    try:
        rows = () if validation is None else st_validation.read(validation.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ReportInvalid("validation", "it is not text in UTF-8", "send the report as written") from error
    return ProfileReports(
        profile,
        read_report(report),
        hashlib.sha256(report).hexdigest(),
        None if deployed is None else read_report(deployed),
        judge_evaluations(rows, limits),
    )


def entry(one: ProfileReports) -> dict[str, Any]:
    """The fit, what the report said, and whether the weights may be exchanged; plain JSON."""
    facts = one.report.document()
    weights = facts.pop("weights")
    return {
        "digest": one.digest,
        **plain(asdict(one.fit)),
        "report": {**facts, "ram_bytes": one.report.ram_bytes, "weight_arrays": len(weights)},
        "weights_only_swap": None if one.deployed is None else not one.swap_refusals,
        "swap_refusals": list(one.swap_refusals),
        "validation": plain(asdict(one.validation)),
    }


def with_reports(
    document: Mapping[str, Any], reports: Sequence[ProfileReports], images: Mapping[str, ValidationReport]
) -> dict[str, Any]:
    """The document, whose profiles with a report are judged by it. images: reports of our images by digest."""
    by_profile = {one.profile.name: one for one in reports}
    outcomes: list[tuple[str, str, ValidationReport | None]] = []
    for choice in document["choices"]:
        own = by_profile.get(choice["profile"])
        if own is None:
            misfit = "" if choice["digest"] else choice["reason"]
            outcomes.append((choice["profile"], misfit, images.get(choice["digest"] or "")))
            continue
        found = ValidationReport(own.validation.verdict, (), own.validation.reasons)
        outcomes.append((own.profile.name, " ".join((*own.fit.reasons, *own.swap_refusals)), found))
    verdict, reasons = overall(outcomes)
    fits = [fit for fit in document["fits"] if fit["profile"] not in by_profile]
    reported = [{**entry(one), "chosen": True} for one in reports]
    return {**document, "verdict": verdict, "reasons": reasons, "fits": [*fits, *reported]}
