from __future__ import annotations

import contextlib

from hypothesis import given
from hypothesis import strategies as st

from updates.patches.codec import Codec, PatchInvalid, apply_patch, build_patch

BASE = bytes(range(256)) * 40
CHANGED = BASE[:5000] + b"changed" + BASE[5000:]


def test_a_small_change_goes_as_a_patch() -> None:
    patch = build_patch(BASE, CHANGED)
    assert patch.codec == Codec.BSDIFF4
    assert len(patch.payload) < 300
    assert apply_patch(patch.codec, BASE, patch.payload, len(CHANGED)) == CHANGED


@given(st.binary(max_size=400), st.binary(min_size=1, max_size=400))
def test_every_pair_decodes_back(base: bytes, target: bytes) -> None:
    patch = build_patch(base, target)
    assert apply_patch(patch.codec, base, patch.payload, len(target)) == target


@given(st.integers(0, 10_000), st.binary(min_size=1, max_size=9))
def test_a_damaged_patch_raises_only_patch_invalid(at: int, noise: bytes) -> None:
    payload = bytearray(build_patch(BASE, CHANGED).payload)
    payload[at % len(payload) : at % len(payload) + len(noise)] = noise
    with contextlib.suppress(PatchInvalid):
        assert len(apply_patch(1, BASE, bytes(payload), len(CHANGED))) <= len(CHANGED)
