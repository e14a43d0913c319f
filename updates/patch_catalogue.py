"""The patches there are: what each saves, which nodes hold its base, which wait for it, and who can decode it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from django.db.models import Count, QuerySet

from devices.models import Node
from updates.models import ModelImage, NodeUpdate, Patch
from updates.patches.codec import Codec
from updates.states import OPEN_STATES, NodeUpdateState, PatchState

PAGE = 50


@dataclass(frozen=True)
class PatchRow:
    """`holding`: nodes that run the base; `able` of them have the decoder that it is built for; `waiting`: nodes of
    campaigns that are to get this patch and have not ended."""

    patch: Patch
    holding: int
    able: int
    waiting: int

    @property
    def size(self) -> int | None:
        return self.patch.blob.size if self.patch.blob else None

    @property
    def saving(self) -> float | None:
        """Of the full image, 0 to 1."""
        return None if self.size is None else 1 - self.size / self.patch.target.size

    @property
    def codec_name(self) -> str:
        """Empty before it is built."""
        number = self.patch.codec
        if number is None:
            return ""
        known = {int(codec): codec.name.lower().replace("_", " ") for codec in Codec}
        return known.get(number, f"codec {number}")


def patch_rows(
    *, state: str = "", family_id: int | None = None, before: int | None = None, limit: int = PAGE
) -> list[PatchRow]:
    """Newest first, from below the id `before`; three queries for any number of rows. Empty values do not filter."""
    rows = _patches().order_by("-id")
    if state:
        rows = rows.filter(state=state)
    if family_id:
        rows = rows.filter(target__version__family=family_id)
    return _with_nodes(list((rows.filter(id__lt=before) if before else rows)[:limit]))


def patch_row(patch_id: int) -> PatchRow:
    """Raises Patch.DoesNotExist."""
    return _with_nodes([_patches().get(pk=patch_id)])[0]


def patches_between(one: list[ModelImage], other: list[ModelImage]) -> list[PatchRow]:
    """In both directions."""
    forward = _patches().filter(base__in=one, target__in=other)
    return _with_nodes([*forward.order_by("id"), *_patches().filter(base__in=other, target__in=one).order_by("id")])


def states_of_patches() -> dict[str, int]:
    """How many patches stand in each state."""
    counted = Patch.objects.values_list("state").annotate(number=Count("id"))
    return dict.fromkeys(PatchState.values, 0) | dict(counted)


def _patches() -> QuerySet[Patch]:
    return Patch.objects.select_related("base__version__family", "target__version__family", "blob").defer("blob__data")


def _with_nodes(patches: list[Patch]) -> list[PatchRow]:
    bases = {patch.base.digest for patch in patches}
    # A node may have reported the whole digest or only its first 4 bytes.
    reported = [*bases, *(digest[:8] for digest in bases)]
    holding: Counter[str] = Counter()
    decoders: Counter[tuple[str, str]] = Counter()
    held = Node.objects.filter(active_digest__in=reported).order_by()
    for row in held.values("active_digest", "firmware_build__decoder_profile").annotate(nodes=Count("id")):
        prefix = row["active_digest"][:8]
        holding[prefix] += row["nodes"]
        decoders[prefix, row["firmware_build__decoder_profile"] or ""] += row["nodes"]
    pending = NodeUpdate.objects.filter(
        state__in=[NodeUpdateState.PLANNED, *OPEN_STATES],
        image__in={patch.target_id for patch in patches},
        base_digest__in=reported,
    )
    waiting: Counter[tuple[str, Any, str]] = Counter()
    columns = ("base_digest", "image", "node__firmware_build__decoder_profile")
    for base, image, decoder, nodes in pending.order_by().values_list(*columns).annotate(nodes=Count("id")):
        waiting[base[:8], image, decoder or ""] += nodes
    return [
        PatchRow(
            patch=patch,
            holding=holding[patch.base.digest[:8]],
            able=decoders[patch.base.digest[:8], patch.decoder],
            waiting=waiting[patch.base.digest[:8], patch.target_id, patch.decoder],
        )
        for patch in patches
    ]
