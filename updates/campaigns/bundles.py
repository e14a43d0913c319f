"""The bundles that a wave offers: one for each base that nodes hold, and the full image for any other."""

from __future__ import annotations

from collections.abc import Iterable

from devices.models import FirmwareBuild
from fleet.blobs.models import load
from fleet.sealing import unseal
from updates.campaigns.plan import REVERT_PURPOSE
from updates.firmware_header import manifest_guard
from updates.models import Campaign, ModelImage, Patch
from updates.patches.bundle import Bundle, pack_bundle
from updates.patches.codec import Codec
from updates.patches.manifest import Manifest, sign_manifest
from updates.patches.revert import revert_command, revert_hash
from updates.signing_keys import active_signer
from updates.states import PatchState

FULL = "*"


def bundles_for(*, campaign: Campaign, image: ModelImage, firmware: FirmwareBuild) -> dict[str, bytes]:
    """Bundles by base digest: the patches that were built for this firmware's decoder, and the full image under "*" where
    the plan allows it. Empty where there is neither."""
    bundles = {}
    if campaign.full_image_allowed:
        payload = load(image.blob_id)
        bundles[FULL] = _bundle(campaign, image, firmware, codec=Codec.FULL_IMAGE, base="", payload=payload)
    for patch in _patches_to(image, firmware.decoder_profile):
        base, payload = patch.base.digest, load(str(patch.blob_id))
        bundles[base] = _bundle(campaign, image, firmware, codec=Codec(patch.codec or 0), base=base, payload=payload)
    return bundles


def _patches_to(image: ModelImage, decoder: str) -> Iterable[Patch]:
    ready = Patch.objects.filter(target=image, decoder=decoder, state=PatchState.READY)
    return ready.exclude(codec=Codec.FULL_IMAGE).select_related("base").order_by("id")


def _bundle(
    campaign: Campaign, image: ModelImage, firmware: FirmwareBuild, *, codec: Codec, base: str, payload: bytes
) -> bytes:
    manifest = Manifest(
        model_id=bytes.fromhex(image.version.family.model_id),
        base_prefix=bytes.fromhex(base)[:8],
        target_digest=bytes.fromhex(image.digest),
        target_size=image.size,
        sequence=campaign.sequence,
        class_hash=bytes.fromhex(firmware.class_hash),
        codec=int(codec),
        self_test_digest=bytes.fromhex(image.self_test_digest),
        revert_hash=revert_hash(_preimage(campaign)),
        guard=manifest_guard(image),
    )
    return pack_bundle(Bundle(sign_manifest(manifest, active_signer()), payload))


def revert_command_for(campaign: Campaign) -> bytes:
    """The command that sends the nodes of `campaign` back. To show it to one node is to give the secret away."""
    return revert_command(_preimage(campaign))


def _preimage(campaign: Campaign) -> bytes:
    return unseal(bytes(campaign.revert_preimage_sealed), purpose=REVERT_PURPOSE)
