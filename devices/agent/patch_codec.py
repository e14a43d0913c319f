"""The shipped patch decoder (patch.c) under Python, and the encoder that drives the same C model: docs/patch-format.md."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from devices.agent import _agent  # type: ignore[attr-defined]  # compiled by devices.agent.build

_ffi: Any = _agent.ffi
_lib: Any = _agent.lib

OUTPUT_UNIT = 32
IMAGE_BYTES_MAX = 1 << 24


class Profile(IntEnum):
    """What a decoder must have: S at most 1 KB of RAM and no floating point, L at most 8 KB."""

    S = 0
    L = 1


class OpKind(IntEnum):
    """Kinds of op as patch_internal.h numbers them."""

    COPY = 0
    BYTES = 1
    LITERAL = 2
    INTEGERS = 3
    FLOATS = 4
    ROWS = 5
    LINEAR = 6
    COLUMNS = 7
    FRESH = 8
    INTEGERS_RATIO = 9
    INTEGERS_SCALED = 10
    SAME_WORDS = 11
    SAME_ROWS = 12
    SAME_COLUMNS = 13
    EARLIER = 14


@dataclass(frozen=True)
class Op:
    """A step of a patch; its fields as patch_host.h describes them."""

    kind: OpKind
    count: int
    width: int = 0
    inner: int = 0
    offset: int = 0


@dataclass(frozen=True)
class Header:
    profile: Profile
    base_size: int
    target_size: int
    base_prefix: bytes  # 2 bytes of SHA-256
    target_prefix: bytes  # 4 bytes of SHA-256


class PatchRefused(ValueError):
    """The decoder refuses the patch, or it gives other bytes than its header promises."""


def encode(profile: Profile, base: bytes, target: bytes, ops: Sequence[Op]) -> tuple[bytes, list[int]]:
    """The patch that these ops make, and the bits that each took. Raises ValueError where they do not make the target."""
    capacity = 2 * len(target) + 1024
    out, bits = _ffi.new("uint8_t[]", capacity), _ffi.new("uint32_t[]", len(ops))
    table = _ffi.new("mf_patch_op[]", [(op.kind, op.count, op.width, op.inner, op.offset) for op in ops])
    prefixes = hashlib.sha256(base).digest()[:2] + hashlib.sha256(target).digest()[:4]
    size = _lib.mf_patch_encode(
        profile, prefixes, base, len(base), target, len(target), table, len(ops), out, capacity, bits
    )
    if size == 0:
        raise ValueError(f"ops: {len(ops)} of them do not make the target of {len(target)} bytes")
    return bytes(_ffi.buffer(out, size)[:]), list(bits)


class Decoder:
    """One decoding on a node: feed it pieces of any size; what it holds between two of them is `save`d state."""

    def __init__(
        self, base: bytes, *, profile: Profile = Profile.L, state: bytes | None = None, written: bytes = b""
    ) -> None:
        """A decoder of a build with `profile` (L takes patches of both) over a base; with `state`, one that goes on
        after `written`, the bytes of the target that it had given by then.

        Raises PatchRefused where the state was torn.
        """
        self._base, self._written = base, bytearray(written)
        size = _lib.mf_host_state_bytes(profile)
        self._state = _ffi.new("uint64_t[]", (size + 7) // 8)  # aligned as the C structures want it
        self._size = size
        self.finished = False
        if state is None:
            _lib.mf_host_begin(self._state, 3 if profile is Profile.L else 1)
            return
        if len(state) != size:
            raise PatchRefused(f"state: {len(state)} bytes, must be {size}")
        _ffi.memmove(self._state, state, size)
        if _lib.mf_host_restored(self._state) != 0:
            raise PatchRefused("state: it was not saved whole")

    def save(self) -> bytes:
        """Plain bytes to go on from, after any call of `feed`."""
        _lib.mf_host_seal(self._state)
        return bytes(_ffi.buffer(self._state, self._size)[:])

    def feed(self, piece: bytes, *, last: bool) -> tuple[int, bytes]:
        """How many bytes of the piece were used, and the next 0..32 bytes of the target.

        Call again with the rest until nothing comes out and all is used. Raises PatchRefused.
        """
        used, ready = _ffi.new("size_t *"), _ffi.new("uint32_t *")
        out = _ffi.new("uint8_t[]", OUTPUT_UNIT + 4)
        with _ffi.from_buffer("uint8_t[]", self._written) as written:
            status = _lib.mf_host_run(
                self._state, self._base, len(self._base), written, piece, len(piece), last, used, out, ready
            )
        if status not in (_lib.MF_HOST_MORE, _lib.MF_HOST_OUTPUT, _lib.MF_HOST_DONE):
            raise PatchRefused("patch: not one for this base and this decoder")
        self.finished = status == _lib.MF_HOST_DONE
        given = bytes(_ffi.buffer(out, ready[0])[:])
        self._written += given
        return int(used[0]), given

    @property
    def header(self) -> Header | None:
        """Once it has been read."""
        fields, prefixes = _ffi.new("uint32_t[3]"), _ffi.new("uint8_t[6]")
        if _lib.mf_host_header(self._state, fields, prefixes) != 0:
            return None
        raw = bytes(_ffi.buffer(prefixes)[:])
        return Header(Profile(fields[0]), int(fields[1]), int(fields[2]), raw[:2], raw[2:])


def state_bytes(profile: Profile) -> int:
    """RAM of a decoder besides its stack, as compiled here; the same on a 32-bit core."""
    return int(_lib.mf_host_state_bytes(profile))


def read_header(patch: bytes) -> Header:
    """What a patch says of itself; nothing is decoded. Raises PatchRefused."""
    if len(patch) < 9 or patch[0] >> 1 != 1:
        raise PatchRefused("patch: does not begin with the header of a weight patch, version 1")
    numbers, at = [], 7
    for _ in range(2):
        number = shift = 0
        while True:
            if at >= len(patch) or shift > 28:
                raise PatchRefused("patch: its header is cut off")
            number |= (patch[at] & 127) << shift
            shift, at = shift + 7, at + 1
            if patch[at - 1] < 128:
                break
        numbers.append(number)
    target_size = numbers[0] + (numbers[1] >> 1 if numbers[1] % 2 == 0 else -(numbers[1] + 1 >> 1))
    return Header(Profile(patch[0] & 1), numbers[0], target_size, patch[1:3], patch[3:7])


def decode(
    base: bytes, patch: bytes, *, profile: Profile = Profile.L, target_size_limit: int = IMAGE_BYTES_MAX
) -> bytes:
    """The target, whose digest begins as the header says. Raises PatchRefused, naming what is wrong, and nothing else."""
    return _decode(base, patch, profile, target_size_limit, None)


@dataclass(frozen=True)
class Part:
    """An op as it was decoded: `at` and `size` are bytes of the target, `bits` what it took of the patch."""

    op: Op
    at: int
    size: int
    bits: int


def decode_parts(base: bytes, patch: bytes) -> tuple[bytes, list[Part]]:
    """The target, and op by op how it came about. Raises PatchRefused."""
    # No op makes less than a byte.
    table = _ffi.new("mf_patch_part[]", max(1, min(read_header(patch).target_size, 1 << 16)))
    count = _ffi.new("size_t *")
    target = _decode(base, patch, Profile.L, IMAGE_BYTES_MAX, (table, count))
    parts: list[Part] = []
    at = 0
    for row in table[0 : min(count[0], len(table))]:
        size = int(row.produced) - at
        raw = row.op
        op = Op(OpKind(raw.kind), int(raw.count), int(raw.width), int(raw.inner), int(raw.offset))
        parts.append(Part(op, at, size, int(row.bits)))
        at += size
    return target, parts


def _decode(base: bytes, patch: bytes, profile: Profile, target_size_limit: int, trace: Any) -> bytes:
    header = read_header(patch)
    if header.profile > profile:
        raise PatchRefused("patch: profile L, this decoder takes S only")
    if header.base_size != len(base) or hashlib.sha256(base).digest()[:2] != header.base_prefix:
        raise PatchRefused(
            f"base: {len(base)} bytes with another digest, the patch is for {header.base_size} bytes "
            f"whose SHA-256 begins with {header.base_prefix.hex()}"
        )
    if not 1 <= header.target_size <= target_size_limit:
        raise PatchRefused(f"target size: the header says {header.target_size}, must be 1..{target_size_limit}")
    state = _ffi.new("uint64_t[]", (_lib.mf_host_state_bytes(profile) + 7) // 8)
    out = _ffi.new("uint8_t[]", header.target_size)
    profiles = 3 if profile is Profile.L else 1
    table, count = trace or (_ffi.NULL, _ffi.NULL)
    rows = table, len(table) if trace else 0, count
    size = _lib.mf_host_decode(state, profiles, base, len(base), patch, len(patch), out, header.target_size, *rows)
    if size != header.target_size:
        raise PatchRefused("patch: damaged, it does not decode to an image of the size in its header")
    target = bytes(_ffi.buffer(out, size)[:])
    if hashlib.sha256(target).digest()[:4] != header.target_prefix:
        raise PatchRefused("patch: damaged, what it decodes to does not have the digest in its header")
    return target
