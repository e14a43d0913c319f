"""The decoder on Cortex-M cores: the same bytes as here, and it fits."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from devices.agent.patch_codec import OpKind, Profile, state_bytes
from tests.arm.machines import MACHINES, code_bytes, decode_on, missing
from tests.unit.updates.weight_images import fine_tuned, image
from updates.patches.weight_patch import encode_patch

pytestmark = pytest.mark.skipif(missing() is not None, reason=str(missing()))
BASE, LAYOUT = image(1)
TARGET = fine_tuned(BASE, LAYOUT, 2)


@pytest.mark.parametrize("core", MACHINES)
@pytest.mark.parametrize("profile", Profile, ids=lambda profile: profile.name)
def test_a_core_decodes_to_the_same_bytes_within_its_memory(core: str, profile: Profile, tmp_path: Path) -> None:
    patch = encode_patch(BASE, TARGET, profile=profile, layouts=(LAYOUT, LAYOUT))
    assert (OpKind.LINEAR in {op.kind for op in patch.ops}) == (profile is Profile.L)
    run = decode_on(MACHINES[core], BASE, patch.data, tmp_path, only_s=profile is Profile.S)
    assert (run.status, run.size, run.digest) == (2, len(TARGET), hashlib.sha256(TARGET).digest())
    assert state_bytes(profile) + run.stack <= (8192 if profile is Profile.L else 1024)


def test_the_decoder_for_cortex_m4_is_small(tmp_path: Path) -> None:
    assert code_bytes(tmp_path, MACHINES["Cortex-M4F"], only_s=False) <= 6144
    assert code_bytes(tmp_path, MACHINES["Cortex-M4F"], only_s=True) <= 2560
