"""What an image near the deployed one saves on the radio, told before any campaign is planned."""

from __future__ import annotations

from typing import Any

from devices.links.base import RadioFacts
from devices.links.lorawan.link import LoRaWanLink
from devices.models import HardwareProfile
from updates.patches.codec import build_patch
from updates.patches.decoders import READS
from updates.pipeline.post_pass import class_of
from updates.pipeline.types import Against

# At most; and the data rate at which hours on the radio are told.
MANIFEST_BYTES, DATA_RATE = 192, 3


def against(base: bytes) -> Against:
    """The deployed image, with the patches of the strongest decoder. Raises ValueError where it is no integer image."""
    return Against(base, lambda image: len(build_patch(base, image, decodable=READS["l"]).payload), class_of(base))


def transfer(patch_bytes: int) -> dict[str, Any]:
    """What it takes to bring a patch and its manifest to a node at a middling data rate."""
    estimate = LoRaWanLink().estimate(
        profile=HardwareProfile(), size=patch_bytes + MANIFEST_BYTES, radio=RadioFacts("EU868", DATA_RATE)
    )
    return {"link": f"LoRaWAN EU868 DR{DATA_RATE}", "frames": estimate.frames, "hours": round(estimate.hours, 2)}
