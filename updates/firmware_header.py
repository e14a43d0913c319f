"""The guard of an image of the database: in its C header, and in the manifests that bring it."""

from __future__ import annotations

from dataclasses import asdict

from updates.models import ModelImage
from updates.patches.manifest import Guard as ManifestGuard
from updates.pipeline.c_header import HeaderFacts, c_header
from updates.pipeline.guard import Bounds, Confidence, Guard


def header_of(digest: str) -> tuple[str, str]:
    """(file name, text). Raises ModelImage.DoesNotExist."""
    image = ModelImage.objects.select_related("version__family").get(known_id=digest)
    reported = image.field_evidence.exclude(arena_bytes=None).values_list("arena_bytes", flat=True)
    facts = HeaderFacts(
        title=f"{image.version}, {image.precision}, {image.granularity}",
        digest=image.digest,
        size=image.size,
        arena_bytes=max([image.arena_bytes, *image.facts.get("arena_estimates", {}).values(), *reported]),
        alignment=image.alignment,
        self_test_digest=image.self_test_digest,
        io_hash=image.io_hash,
        facts=image.facts,
        guard=_guard(image),
    )
    return f"model_{image.digest[:8]}.h", c_header(facts)


def manifest_guard(image: ModelImage) -> ManifestGuard | None:
    """Threshold (0: none) and the five bounds in the order of docs/guard.md."""
    found = _guard(image)
    if found is None:
        return None
    threshold = 0 if found.threshold is None else found.threshold.per_mille
    return ManifestGuard(threshold, tuple(asdict(found.bounds).values()))


def _guard(image: ModelImage) -> Guard | None:
    """None for an image that was built before guards were."""
    known = image.facts.get("guard")
    if not known:
        return None
    threshold = known["threshold"]
    return Guard(
        Bounds(**known["bounds"]),
        None if threshold is None else Confidence(**threshold | {"error_interval": tuple(threshold["error_interval"])}),
    )
