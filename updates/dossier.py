"""The whole evidence of a version: the document of its evaluation, and the dossier that binds it to its inputs."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from updates.models import Campaign, ModelImage, ModelVersion
from updates.models import ValidationReport as ReportRow
from updates.pipeline.document import image_entry, overall, plain
from updates.pipeline.types import Signal, TargetClass, ValidationLimits, ValidationReport
from updates.profiles import pipeline_profile
from updates.selectors import version as whole_version
from updates.signing_keys import active_signer

# No manifest begins like this: a signature of one can never pass for a signature of the other.
DOSSIER_LABEL = b"modelfleet-dossier\x00"


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
    outcomes = [
        (one["profile"], "" if one["digest"] else one["reason"], _report(reports.get(one["digest"] or "")))
        for one in choices
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
    reason = (
        f"{first.precision} ({first.granularity}) is the best of {fits} images that fit {profile}."
        if fit.fits
        else f"None of {len(rows)} images fits {profile}."
    )
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


def signed_dossier(version_id: int) -> dict[str, Any]:
    """{"dossier": ..., "signature": ...}: all evidence of a version, signed by the active key (docs/evaluation.md).

    Signed is DOSSIER_LABEL and the dossier's canonical JSON: keys sorted, no spaces, UTF-8. Raises
    ModelVersion.DoesNotExist, and KeyUnusable where there is no key.
    """
    version = whole_version(version_id)
    family = version.family
    dossier: dict[str, Any] = {
        "format": "modelfleet-dossier-1",
        "version": {
            "family": family.name,
            "model_id": family.model_id,
            "name": version.name,
            "digest": version.digest,
            "state": version.state,
            "uploaded_by": version.uploaded_by,
            "uploaded_at": _time(version.created_at),
            "built_at": _time(version.built_at),
        },
        # Blobs are kept by the SHA-256 of their bytes.
        "inputs": {"onnx": version.onnx_id, "calibration": version.calibration_id, "evaluation": version.evaluation_id},
        "contract": {
            "task": family.task,
            "preprocessing": family.preprocessing,
            "class_names": family.class_names,
            "limits": asdict(ValidationLimits.of(family.limits)),
            "signal": asdict(Signal.of(family.signal)),
        },
        "evaluation": version_document(version),
        "approvals": [
            {
                "campaign": campaign.name,
                "created_by": campaign.created_by,
                "approved_by": campaign.approved_by,
                "plan_hash": campaign.plan_hash,
            }
            for campaign in Campaign.objects.filter(version=version).exclude(plan_hash="").order_by("id")
        ],
    }
    encoded = canonical(dossier)
    signer = active_signer()
    return {
        "dossier": plain(dossier),
        "signature": {
            "algorithm": "Ed25519",
            "key_id": signer.key_id.hex(),
            "sha256": hashlib.sha256(encoded).hexdigest(),
            "signature": signer.sign(DOSSIER_LABEL + encoded).hex(),
        },
    }


def canonical(dossier: dict[str, Any]) -> bytes:
    """What is hashed and signed."""
    return json.dumps(plain(dossier), sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else moment.astimezone(UTC).isoformat(timespec="seconds")
