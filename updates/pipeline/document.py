"""The document of an evaluation: one shape for the command line, REST and the dossier (docs/evaluation.md)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from updates.pipeline.types import BuildResult, Choice, CurvePoint, Profile, Refused, TargetClass, ValidationReport

# Frames, hours and what was assumed of the radio, by name.
Transfer = Callable[[int], Mapping[str, Any]]
SHAPE_FACTS = tuple(
    f"{side}_{what}" for side in ("input", "output") for what in ("shape", "type", "scale", "zero_point")
)
IMAGE_FACTS = ("arena_bytes", "arena_estimates", "operators", "io_hash", "self_test_digest", *SHAPE_FACTS)


def document(
    result: BuildResult,
    *,
    profiles: Sequence[Profile],
    files: Mapping[str, str],
    transfer: Transfer | None = None,
) -> dict[str, Any]:
    """files: where each image was written, by digest; none where it was not. transfer: what it takes to bring so many
    bytes to a node. All values are plain JSON."""
    chosen = _chosen_for(result.choices)
    verdict, reasons = overall(
        [
            (choice.profile, choice.reason if choice.digest is None else "", result.reports.get(choice.digest or ""))
            for choice in result.choices
        ]
    )
    return {
        "verdict": verdict,
        "reasons": reasons,
        "images": [
            image_entry(
                target=image.target,
                size=len(image.data),
                digest=image.digest,
                facts=asdict(image),
                file=files.get(image.digest),
                chosen_for=chosen.get(image.digest, []),
            )
            for image in result.images
        ],
        "fits": [
            {"digest": digest, "chosen": fit.profile in chosen.get(digest, []), **plain(asdict(fit))}
            for digest, fits in result.fits.items()
            for fit in fits
        ],
        "validation": [{"digest": digest, **plain(asdict(report))} for digest, report in result.reports.items()],
        "choices": [plain(asdict(choice)) for choice in result.choices],
        "curve": [curve_entry(point, files.get(point.digest), transfer) for point in result.curve],
        "curve_refusal": result.curve_refusal,
        "guards": {digest: plain(asdict(guard)) for digest, guard in result.guards.items()},
        "left_out": [{**asdict(target), "reason": reason} for target, reason in result.left_out],
        "fp32_latency_ms": latency_entry(result.fp32_latency_ms),
        "profiles": [plain(asdict(profile)) for profile in profiles],
        "tools": dict(result.tools),
        "refusal": None,
    }


def curve_entry(point: CurvePoint, file: str | None, transfer: Transfer | None) -> dict[str, Any]:
    facts = asdict(point)
    data = facts.pop("data")
    return {
        "file": file,
        **plain(facts),
        "bytes": len(data),
        **(dict(transfer(point.patch_bytes)) if transfer else {}),
    }


def refused(refusal: Refused, *, profiles: Sequence[Profile]) -> dict[str, Any]:
    """Of a model of which no image can be made: all keys that `document` has."""
    empty: dict[str, Any] = {name: [] for name in ("images", "fits", "validation", "choices", "curve", "left_out")}
    return {
        "verdict": "refused",
        "reasons": [str(refusal)],
        **empty,
        "curve_refusal": "",
        "guards": {},
        "fp32_latency_ms": None,
        "profiles": [plain(asdict(profile)) for profile in profiles],
        "tools": {},
        "refusal": dict(vars(refusal)),
    }


def image_entry(
    *,
    target: TargetClass,
    size: int,
    digest: str,
    facts: Mapping[str, Any],
    file: str | None,
    chosen_for: Sequence[str],
) -> dict[str, Any]:
    """facts: of the fields of `Image`, those in IMAGE_FACTS that are known."""
    return {
        "file": file,
        **asdict(target),
        "bytes": size,
        "digest": digest,
        "chosen": bool(chosen_for),
        "chosen_for": list(chosen_for),
        **{name: plain(facts[name]) for name in IMAGE_FACTS if name in facts},
    }


def overall(outcomes: Sequence[tuple[str, str, ValidationReport | None]]) -> tuple[str, list[str]]:
    """May the version run on all of its profiles? Each outcome: profile, why nothing fits it (empty where something does),
    and the report of the image that it gets. Fits and passes on every one: passed."""
    verdict, reasons = "passed", []
    for profile, misfit, report in outcomes:
        if misfit or report is None:
            verdict = "failed"
            reasons.append(f"{profile}: {misfit or 'no image'}")
        elif report.verdict != "passed":
            verdict = "failed" if "failed" in (verdict, report.verdict) else "inconclusive"
            reasons += [f"{profile}: {reason}" for reason in report.reasons]
    return verdict, list(dict.fromkeys(reasons))


def _chosen_for(choices: Sequence[Choice]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for choice in choices:
        if choice.digest is not None:
            found.setdefault(choice.digest, []).append(choice.profile)
    return found


def latency_entry(latency: tuple[float, float] | None) -> dict[str, float] | None:
    return None if latency is None else {"p50": latency[0], "p99": latency[1]}


def plain(value: Any) -> Any:
    """Tuples as lists, and what is not finite as null: JSON knows no infinity (SQNR null: both outputs are equal)."""
    if isinstance(value, Mapping):
        return {key: plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
