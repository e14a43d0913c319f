"""The patches of a campaign: which it asks for, how long it waits for them, and which nodes go without."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING

from django.db.models import Exists, OuterRef, Q

from fleet.clock import fleet_time
from updates.models import Campaign, Method, ModelImage, Patch
from updates.patches.codec import Codec
from updates.patches.decoders import PATCHING
from updates.services import ensure_patches
from updates.states import PatchState

if TYPE_CHECKING:
    from updates.campaigns.plan import Member

NO_PATCH = "no-patch"


def ask_for_patches(campaign: Campaign, reached: Iterable[Member], *, now: datetime) -> list[int]:
    """Keys of the patches that these members can decode, forward and reverse: the way back exists before the first node
    goes forward. Three statements for any number of members; the campaign's deadline for patches counts from now."""
    pairs = {
        (one.base_digest, one.image.pk, one.decoder)
        for one in reached
        if one.image is not None and one.decoder in PATCHING
    }
    bases = _known(base for base, _, _ in pairs)
    wanted = set()
    for base_digest, target, decoder in pairs:
        if (base := bases.get(base_digest)) is not None and base != target:
            wanted |= {(base, target, decoder), (target, base, decoder)}
    campaign.patches_due_at = now + fleet_time(campaign.patch_deadline_s)
    return ensure_patches(wanted=wanted) if wanted else []


def without_full_images(members: Iterable[Member]) -> Iterator[Member]:
    """The same members, where no full image may go: who can never get a patch is refused, with the reason."""
    members = list(members)
    bases = _known(member.base_digest for member in members)
    for member in members:
        why = ""
        if member.image is None or member.method == Method.COMMAND:
            pass
        elif member.decoder not in PATCHING:
            why = "The firmware of these nodes has no patch decoder, and the plan allows no full image."
        elif member.base_digest not in bases:
            why = "These nodes hold an image that no patch can start from, and the plan allows no full image."
        yield replace(member, image=None, cause=NO_PATCH, reason=why) if why else member


def _known(digests: Iterable[str]) -> dict[str, int]:
    """Keys of the images that this server has built, by digest."""
    wanted = set(digests) - {""}
    return dict(ModelImage.objects.filter(known__in=wanted).values_list("known_id", "pk")) if wanted else {}


def late(campaign: Campaign, *, now: datetime) -> bool:
    """Whether nothing waits for its patches any more."""
    return campaign.patches_due_at is not None and now >= campaign.patches_due_at


def patches_pending(campaign: Campaign, *, now: datetime) -> bool:
    """Whether the campaign still waits: a patch is to be built, and it is not late. So this ends, whatever a build does."""
    if late(campaign, now=now):
        return False
    return Patch.objects.filter(state=PatchState.WAITING, pk__in=campaign.plan["patches"]).exists()


def patch_of_node_update() -> dict[str, Exists]:
    """For a query of node updates: `has_patch` from what the node runs, smaller than the image, for its decoder; and
    `patch_to_come`."""
    patches = Patch.objects.filter(
        base__known=OuterRef("node__active_digest"),
        target=OuterRef("image"),
        decoder=OuterRef("node__firmware_build__decoder_profile"),
    )
    return {
        "has_patch": Exists(patches.filter(state=PatchState.READY).exclude(codec=Codec.FULL_IMAGE)),
        "patch_to_come": Exists(patches.filter(state=PatchState.WAITING)),
    }


def patch_warnings(campaign: Campaign, *, now: datetime) -> list[str]:
    """Sentences about patches that failed or are late; they stop nothing. Two queries at most."""
    missing = Patch.objects.filter(~Q(state=PatchState.READY), pk__in=campaign.plan.get("patches", []))
    counts: Counter[tuple[str, str]] = Counter()
    for state, base_version, target_version in missing.values_list("state", "base__version", "target__version"):
        if state == PatchState.FAILED or late(campaign, now=now):
            undone = campaign.reverts.version_id if campaign.reverts else None
            forward = base_version == undone if undone is not None else target_version == campaign.version_id
            what = "could not be built" if state == PatchState.FAILED else "late"
            counts["forward" if forward else "reverse", what] += 1
    instead = "the full image goes" if campaign.full_image_allowed else "their nodes are left out, as the plan says"
    sentences = []
    for (direction, what), number in sorted(counts.items()):
        then = instead if direction == "forward" else "the way back takes the full image where a slot is lost"
        sentences.append(f"{number} {direction} patch{'es' if number != 1 else ''} {what}: {then}.")
    return sentences
