"""Patch codecs by number: what turns the bytes of a base image into those of a target image.

Number 0 is the full image as it is, 1 is a BSDIFF40 file (C. Percival, "Naive differences of executable code",
2003) as the bsdiff4 package writes it, 2 and 3 are the weight patches of docs/patch-format.md, profile S and L.
Numbers are part of the signed manifest and are never used again for another format.
"""

from __future__ import annotations

import bz2
from collections.abc import Collection
from dataclasses import dataclass
from enum import IntEnum

import bsdiff4
import numpy as np

from devices.agent.patch_codec import PatchRefused, Profile, decode
from updates.patches.weight_patch import PatchNotProved, encode_patch

_HEADER_BYTES = 32
_CONTROL_BYTES = 24


class Codec(IntEnum):
    """Number of a codec as the manifest carries it."""

    FULL_IMAGE = 0
    BSDIFF4 = 1
    WEIGHTS_S = 2
    WEIGHTS_L = 3


_PROFILES = {Codec.WEIGHTS_S: Profile.S, Codec.WEIGHTS_L: Profile.L}
# What every firmware decodes, also one from before the weight patches.
DECODABLE_BY_ALL = frozenset({Codec.FULL_IMAGE, Codec.BSDIFF4})


class PatchFailed(Exception):
    """The encoder made a patch that does not give the target back: a defect of the codec, so the patch is not used."""


class PatchInvalid(ValueError):
    """A payload cannot be applied to this base; the message says why."""


@dataclass(frozen=True)
class Patch:
    """What goes after the manifest in a bundle: `payload` is read by `codec`."""

    codec: Codec
    payload: bytes


def build_patch(base: bytes, target: bytes, *, decodable: Collection[int] = DECODABLE_BY_ALL) -> Patch:
    """The smallest of the full target and of the patches that a node with these codecs decodes; already decoded back and
    compared.

    An empty base asks for the full image. Takes up to 5 s for 300 KB.
    Raises PatchFailed where a patch does not reproduce the target, ValueError for an empty target.
    """
    if not target:
        raise ValueError("target: 0 bytes, an image must have at least 1")
    built = [Patch(Codec.FULL_IMAGE, target)]
    if base and Codec.BSDIFF4 in decodable:
        built.append(_proved(base, target, Patch(Codec.BSDIFF4, bsdiff4.diff(base, target))))
    for codec, profile in _PROFILES.items():
        # What takes L takes S too, and L is never the larger one by more than a few bytes.
        if base and codec in decodable and (profile is Profile.L or Codec.WEIGHTS_L not in decodable):
            try:
                built.append(Patch(codec, encode_patch(base, target, profile=profile).data))
            except PatchNotProved as error:
                raise PatchFailed(f"codec {codec}: {error}") from error
    return min(built, key=lambda patch: len(patch.payload))


def _proved(base: bytes, target: bytes, patch: Patch) -> Patch:
    try:
        decoded = apply_patch(patch.codec, base, patch.payload, len(target))
    except PatchInvalid as error:
        raise PatchFailed(f"codec {patch.codec}: its own decoder refuses the patch: {error}") from error
    if decoded != target:
        raise PatchFailed(f"codec {patch.codec}: the patch decodes to other bytes than the target")
    return patch


def apply_patch(codec: int, base: bytes, payload: bytes, target_size_limit: int) -> bytes:
    """The target image, at most target_size_limit bytes; memory stays below 30 times that limit.

    Raises PatchInvalid, and nothing else, for whatever is wrong with the codec number, the payload or its fit to the
    base.
    """
    if codec == Codec.FULL_IMAGE:
        if len(payload) > target_size_limit:
            raise PatchInvalid(f"payload: {len(payload)} bytes, the target may have {target_size_limit}")
        return payload
    if codec == Codec.BSDIFF4:
        return _apply_bsdiff4(base, payload, target_size_limit)
    if codec in (Codec.WEIGHTS_S, Codec.WEIGHTS_L):
        try:
            return decode(base, payload, profile=_PROFILES[Codec(codec)], target_size_limit=target_size_limit)
        except PatchRefused as error:
            raise PatchInvalid(str(error)) from error
    raise PatchInvalid(f"codec: {codec} is unknown, must be one of {[int(known) for known in Codec]}")


def _apply_bsdiff4(base: bytes, payload: bytes, limit: int) -> bytes:
    # Not bsdiff4.patch: it trusts the sizes in the header and decompresses without a bound.
    if len(payload) < _HEADER_BYTES or payload[:8] != b"BSDIFF40":
        raise PatchInvalid("payload: does not begin with a BSDIFF40 header of 32 bytes")
    control_size, diff_size, target_size = (_signed(payload[at : at + 8]) for at in (8, 16, 24))
    if not 0 <= target_size <= limit:
        raise PatchInvalid(f"target size: the header says {target_size}, must be 0..{limit}")
    if control_size < 0 or diff_size < 0 or _HEADER_BYTES + control_size + diff_size > len(payload):
        raise PatchInvalid(f"block sizes: {control_size} and {diff_size} do not fit in {len(payload)} bytes")
    diff_start = _HEADER_BYTES + control_size
    extra_start = diff_start + diff_size
    control = _decompress(payload[_HEADER_BYTES:diff_start], _CONTROL_BYTES * (target_size + 1), "control block")
    diff = _decompress(payload[diff_start:extra_start], target_size, "diff block")
    extra = _decompress(payload[extra_start:], target_size, "extra block")
    if len(control) % _CONTROL_BYTES or len(diff) + len(extra) != target_size:
        raise PatchInvalid("blocks: their lengths do not add up to the target size")

    old = np.frombuffer(base, dtype=np.uint8)
    differences = np.frombuffer(diff, dtype=np.uint8)
    target = bytearray()
    base_at = diff_at = extra_at = 0
    for entry in range(0, len(control), _CONTROL_BYTES):
        add, copy, seek = (_signed(control[entry + at : entry + at + 8]) for at in (0, 8, 16))
        if not 0 <= add <= len(diff) - diff_at or not 0 <= copy <= len(extra) - extra_at:
            raise PatchInvalid(f"control entry {entry // _CONTROL_BYTES}: reads past the end of its block")
        if add and not 0 <= base_at <= len(base) - add:
            raise PatchInvalid(f"control entry {entry // _CONTROL_BYTES}: reads outside the base of {len(base)} bytes")
        if add:
            target += (old[base_at : base_at + add] + differences[diff_at : diff_at + add]).tobytes()
        target += extra[extra_at : extra_at + copy]
        base_at += add + seek
        diff_at += add
        extra_at += copy
    if len(target) != target_size:
        raise PatchInvalid(f"control block: makes {len(target)} bytes, the header says {target_size}")
    return bytes(target)


def _signed(eight: bytes) -> int:
    """BSDIFF40 integers: little-endian magnitude of 63 bits, sign in the top bit."""
    value = int.from_bytes(eight, "little")
    return value if value < 1 << 63 else (1 << 63) - value


def _decompress(block: bytes, limit: int, name: str) -> bytes:
    decompressor = bz2.BZ2Decompressor()
    try:
        # One byte more than allowed tells "too long" from "just fits".
        data = decompressor.decompress(block, max_length=limit + 1)
        while not decompressor.eof and not decompressor.needs_input and len(data) <= limit:
            data += decompressor.decompress(b"", max_length=limit + 1 - len(data))
    except (OSError, ValueError) as error:
        raise PatchInvalid(f"{name}: not bzip2 data ({error})") from error
    if len(data) > limit:
        raise PatchInvalid(f"{name}: more than {limit} bytes when decompressed")
    if not decompressor.eof or decompressor.unused_data:
        raise PatchInvalid(f"{name}: truncated, or followed by other bytes")
    return data
