"""How an image lies in a profile's memory while it runs."""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace

from devices.models import HardwareProfile
from fleet.blobs.models import load
from updates.models import FieldEvidence, ModelImage
from updates.pipeline.arena import ArenaPlan, plan
from updates.profiles import arena_evidence


class NoMemoryMap(Exception):
    """`str()` is a sentence that says why."""


@dataclass(frozen=True)
class MemoryUse:
    """`ladder`: bytes by name of the evidence; the largest, `needed_bytes`, is what the verdict uses."""

    image: ModelImage
    profile: HardwareProfile
    plan: ArenaPlan
    ladder: dict[str, int]

    @property
    def needed_bytes(self) -> int:
        return max(self.ladder.values())


def memory_use(image: ModelImage, profile: HardwareProfile) -> MemoryUse:
    """Plans the arena anew from the image's bytes: about 20 ms for 100 operators. Raises NoMemoryMap."""
    if image.runtime != "tflm":
        raise NoMemoryMap(f"{image.runtime} compiles its memory layout; only that of TFLM images can be planned here.")
    try:
        planned = plan(load(image.blob_id), kernel_library=profile.kernel_library)
    except (ValueError, IndexError, TypeError, struct.error) as error:
        raise NoMemoryMap(f"The stored image cannot be read as a .tflite file ({error}).") from error
    said = FieldEvidence.objects.filter(image=image, profile=profile).first()
    evidence = replace(arena_evidence(image), reported_bytes=said.arena_bytes if said else None)
    return MemoryUse(image, profile, planned, evidence.ladder(kernel_library=profile.kernel_library))
