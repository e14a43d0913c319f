"""The evaluation of a version that was built, as `manage.py evaluate_model` writes it."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict
from typing import Any

from updates.models import ModelImage, ModelVersion
from updates.models import ValidationReport as ReportRow
from updates.pipeline.choice import none_fits, nothing_for
from updates.pipeline.document import image_entry, overall, plain
from updates.pipeline.types import TargetClass, ValidationReport
from updates.profiles import pipeline_profile
from updates.selectors import version as whole_version


def version_document(version: ModelVersion) -> dict[str, Any]:
    """As `updates.pipeline.document.document`, from what the build stored and the profiles of today (docs/evaluation.md)."""
    version = whole_version(version.pk)
    images = list(version.images.all())
    by_profile: dict[str, list[tuple[int, ModelImage, Any]]] = defaultdict(list)
    for image in images:
        for fit in image.fits.all():
            by_profile[fit.profile.name].append((fit.rank, image, fit))
    choices = [_choice(name, sorted(rows, key=lambda row: row[0])) for name, rows in sorted(by_profile.items())]
    chosen: dict[str, list[str]] = defaultdict(list)
    for choice in choices:
        chosen[choice["digest"] or ""].append(choice["profile"])
    reports = {image.digest: image.validation for image in images if hasattr(image, "validation")}
    # Of a compiled runtime nothing is known before its image is uploaded: that says nothing against the other images.
    runtimes = {image.runtime for image in images}
    of_runtimes = [one for one in choices if by_profile[one["profile"]][0][2].profile.runtime in runtimes]
    outcomes = [
        (one["profile"], "" if one["digest"] else one["reason"], _report(reports.get(one["digest"] or "")))
        for one in of_runtimes or choices
    ]
    verdict, reasons = overall(outcomes)
    if version.refusal and not images:
        verdict, reasons = "refused", [f"{version.refusal['field']}: {version.refusal['message']}"]
    profiles = {fit.profile for image in images for fit in image.fits.all()}
    return {
        "verdict": verdict,
        "reasons": reasons,
        "images": [_image(image, chosen.get(image.digest, [])) for image in images],
        "fits": [
            {
                "digest": image.digest,
                "chosen": fit.rank == 0 and fit.fits,
                "fits": fit.fits,
                "reasons": fit.reasons,
                **plain(fit.numbers),
            }
            for image in images
            for fit in image.fits.all()
        ],
        "validation": [
            {"digest": digest, "verdict": report.verdict, "slices": report.slices, "reasons": report.reasons}
            for digest, report in reports.items()
        ],
        "choices": choices,
        "curve": version.evidence.get("curve", []),
        "curve_refusal": version.evidence.get("curve_refusal", ""),
        "guards": {image.digest: image.facts["guard"] for image in images if image.facts.get("guard")},
        "left_out": version.evidence.get("left_out", []),
        "fp32_latency_ms": version.evidence.get("fp32_latency_ms"),
        "profiles": [
            plain(asdict(pipeline_profile(one))) for one in sorted(profiles, key=lambda profile: profile.name)
        ],
        "tools": version.tools,
        "refusal": version.refusal,
    }


def _image(image: ModelImage, chosen_for: list[str]) -> dict[str, Any]:
    own = ("arena_bytes", "operators", "io_hash", "self_test_digest")
    return image_entry(
        target=TargetClass(image.runtime, image.precision, image.granularity, image.alignment),
        size=image.size,
        digest=image.digest,
        facts=image.facts | {name: getattr(image, name) for name in own},
        file=None,
        chosen_for=chosen_for,
    )


def _report(row: ReportRow | None) -> ValidationReport | None:
    return None if row is None else ValidationReport(row.verdict, (), tuple(row.reasons))  # type: ignore[arg-type]


def _choice(profile: str, rows: list[tuple[int, ModelImage, Any]]) -> dict[str, Any]:
    _, first, fit = rows[0]
    fits = sum(one.fits for _, _, one in rows)
    if fit.profile.runtime not in {image.runtime for _, image, _ in rows}:
        reason = nothing_for(fit.profile.runtime)
    elif fit.fits:
        reason = f"{first.precision} ({first.granularity}) is the best of {fits} images that fit {profile}."
    else:
        target = TargetClass(first.runtime, first.precision, first.granularity, first.alignment)
        reason = none_fits(profile, len(rows), target, fit.reasons)
    alternatives = [
        {
            "digest": image.digest,
            "target": asdict(TargetClass(image.runtime, image.precision, image.granularity, image.alignment)),
            "fits": one.fits,
            "verdict": image.validation.verdict if hasattr(image, "validation") else "inconclusive",
            "sqnr_db": image.facts.get("noise_db"),
            "arena_bytes": one.numbers["arena_bytes"],
            "image_bytes": one.numbers["image_bytes"],
        }
        for _, image, one in rows
    ]
    return {
        "profile": profile,
        "digest": first.digest if fit.fits else None,
        "alternatives": alternatives,
        "reason": reason,
    }
