"""The whole evidence of a version in one signed document: what an auditor of functional safety asks for.

It is made from rows each time: what it says is what the database held at `made_at`. Times are ISO 8601 in UTC, sizes bytes.
"""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Any

from django.db.models import Count, QuerySet

from devices.models import Node
from fleet.audit.models import AuditEntry
from fleet.blobs.models import Blob
from updates import selectors
from updates.models import Campaign, ModelImage, ModelVersion, SigningKey
from updates.patches.jws import open_json, sign_json
from updates.patches.signing import TrustedKeys
from updates.pipeline.document import plain
from updates.pipeline.types import ValidationLimits
from updates.signer import installation_signer
from updates.signing_keys import active_signer

KIND = "modelfleet-dossier+json"
FORMAT = 1


def signed_dossier(version_id: int, *, now: datetime) -> dict[str, str]:
    """Flattened JWS over `dossier`. Raises ModelVersion.DoesNotExist and updates.patches.signing.KeyUnusable."""
    return sign_json(dossier(version_id, now=now), active_signer(), kind=KIND)


def verified_dossier(signed: object, *, public_keys: list[bytes]) -> dict[str, Any]:
    """What a signed dossier says, if a key of this installation, or one of `public_keys`, made it. Raises NotGenuine."""
    registered = [bytes.fromhex(key) for key in SigningKey.objects.values_list("public_key", flat=True)]
    keys = public_keys or registered or [installation_signer().public_key]
    return open_json(signed, keys=TrustedKeys(keys), kind=KIND)


def dossier(version_id: int, *, now: datetime) -> dict[str, Any]:
    """Raises ModelVersion.DoesNotExist."""
    version = selectors.version(version_id)
    images = list(version.images.all())
    return {
        "format": FORMAT,
        "made_at": now.isoformat(),
        "version": _version(version),
        "inputs": _inputs(version),
        "tools": version.tools,
        # With the defaults written out: what it was held to, whatever they become.
        "limits": plain(asdict(ValidationLimits.of(version.family.limits))),
        "signal": version.family.signal,
        "images": [_image(image) for image in images],
        "fits": [_fit(fit) for image in images for fit in image.fits.all()],
        "validation": [_validation(image) for image in images if hasattr(image, "validation")],
        "found": version.evidence,
        "campaigns": _campaigns(version),
        "nodes": _nodes(images),
        "history": _history(version, images),
    }


def _version(version: ModelVersion) -> dict[str, Any]:
    return {
        "family": version.family.name,
        "model_id": version.family.model_id,
        "task": version.family.task,
        "preprocessing": version.family.preprocessing,
        "class_names": version.family.class_names,
        "name": version.name,
        "digest": version.digest,
        "state": version.state,
        "refusal": version.refusal,
        "uploaded_by": version.uploaded_by,
        "uploaded_at": _time(version.created_at),
        "built_at": _time(version.built_at),
    }


def _inputs(version: ModelVersion) -> dict[str, Any]:
    digests = {name: getattr(version, f"{name}_id") for name in ("onnx", "calibration", "evaluation")}
    sizes = dict(Blob.objects.filter(digest__in=digests.values()).values_list("digest", "size"))
    return {name: {"sha256": digest, "bytes": sizes[digest]} for name, digest in digests.items()}


def _image(image: ModelImage) -> dict[str, Any]:
    kept = (
        "runtime",
        "precision",
        "granularity",
        "alignment",
        "arena_bytes",
        "operators",
        "io_hash",
        "self_test_digest",
    )
    return {
        "digest": image.digest,
        "bytes": image.size,
        **{name: getattr(image, name) for name in kept},
        "facts": image.facts,
        "made_at": _time(image.created_at),
    }


def _fit(fit: Any) -> dict[str, Any]:
    return {
        "digest": fit.image.digest,
        "profile": fit.profile.name,
        "fits": fit.fits,
        "rank": fit.rank,
        "reasons": fit.reasons,
        **{name: value for name, value in fit.numbers.items() if name != "profile"},
    }


def _validation(image: ModelImage) -> dict[str, Any]:
    report = image.validation
    return {"digest": image.digest, "verdict": report.verdict, "reasons": report.reasons, "slices": report.slices}


def _campaigns(version: ModelVersion) -> list[dict[str, Any]]:
    """Who approved which plan, and how it ended; rollbacks of them too."""
    rows: QuerySet[Campaign] = Campaign.objects.filter(version=version) | Campaign.objects.filter(
        reverts__version=version
    )
    campaigns = list(rows.order_by("id"))
    counts = selectors.counts_by_campaign([campaign.pk for campaign in campaigns])
    return [
        {
            "name": campaign.name,
            "kind": campaign.kind,
            "state": campaign.state,
            "reason": campaign.reason,
            "plan_hash": campaign.plan_hash,
            "approved_hash": campaign.approved_hash,
            "approved_by": campaign.approved_by,
            "nodes": counts[campaign.pk],
        }
        for campaign in campaigns
    ]


def _nodes(images: list[ModelImage]) -> dict[str, int]:
    """How many nodes last said that they run each image."""
    holding = Node.objects.filter(active_digest__in=[image.digest for image in images]).values("active_digest")
    return {row["active_digest"]: row["nodes"] for row in holding.annotate(nodes=Count("id"))}


def _history(version: ModelVersion, images: list[ModelImage]) -> list[dict[str, Any]]:
    """What the audit log says of the version, its images and its campaigns, oldest first."""
    subjects = {
        ModelVersion: [version.pk],
        ModelImage: [image.pk for image in images],
        Campaign: list(Campaign.objects.filter(version=version).values_list("pk", flat=True)),
    }
    entries = AuditEntry.objects.none()
    for model, keys in subjects.items():
        entries = entries | AuditEntry.objects.filter(
            object_type=model._meta.label_lower, object_id__in=[str(key) for key in keys]
        )
    return [
        {
            "at": _time(entry.at),
            "actor": entry.actor,
            "action": entry.action,
            "object": entry.object_name,
            "before": entry.before,
            "after": entry.after,
        }
        for entry in entries.order_by("id")
    ]


def _time(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat()
