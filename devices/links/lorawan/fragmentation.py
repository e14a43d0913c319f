"""Fragmented data block transport, TS004-1.0.0, and its parity in the two dialects that decoders in the field have.

All multi-byte fields are little-endian. A wrong dialect makes a decoder put together a wrong block without noticing,
so the dialect belongs to the firmware build.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from math import ceil

PORT = 201
NUMBER_MAX = (1 << 14) - 1
FRAGMENT_BYTES_MAX = 255
DESCRIPTOR_BYTES = 4
_PACKAGE_VERSION, _STATUS, _SETUP, _DELETE, _DATA = 0x00, 0x01, 0x02, 0x03, 0x08


class Dialect(StrEnum):
    """How a parity line draws its M/2 positions: in V1 a position drawn twice counts twice, in V2 it is drawn again."""

    V1 = "ts004-v1"
    V2 = "ts004-v2"


class FragmentationError(ValueError):
    """Bytes or values break TS004; the message names the field."""


@dataclass(frozen=True)
class SetupAnswer:
    index: int
    algorithm_unsupported: bool
    no_memory: bool
    index_unsupported: bool
    wrong_descriptor: bool

    @property
    def accepted(self) -> bool:
        return not self.refusals

    @property
    def refusals(self) -> list[str]:
        names = ("algorithm_unsupported", "no_memory", "index_unsupported", "wrong_descriptor")
        return [name.replace("_", "-") for name in names if getattr(self, name)]


@dataclass(frozen=True)
class StatusAnswer:
    """`received` counts parity too; `missing` 0..255 is no sign of success: see docs/lorawan.md."""

    index: int
    received: int
    missing: int
    no_memory: bool


@dataclass(frozen=True)
class DeleteAnswer:
    index: int
    no_session: bool


@dataclass(frozen=True)
class PackageVersion:
    package: int
    version: int


Answer = SetupAnswer | StatusAnswer | DeleteAnswer | PackageVersion


def setup_request(
    *,
    fragments: int,
    fragment_bytes: int,
    padding: int,
    descriptor: bytes,
    index: int = 0,
    group_mask: int = 0,
    control: int = 0,
) -> bytes:
    """FragSessionSetupReq, 11 bytes. `control`: algorithm in bits 5..3, BlockAckDelay in 2..0."""
    _check("fragments", fragments, 1, NUMBER_MAX)
    _check("fragment size", fragment_bytes, 1, FRAGMENT_BYTES_MAX)
    _check("padding", padding, 0, 255)
    _check("index", index, 0, 3)
    if len(descriptor) != DESCRIPTOR_BYTES:
        raise FragmentationError(f"descriptor: {len(descriptor)} bytes, must be {DESCRIPTOR_BYTES}")
    head = bytes([_SETUP, index << 4 | group_mask]) + fragments.to_bytes(2, "little")
    return head + bytes([fragment_bytes, control, padding]) + descriptor


def status_request(*, index: int = 0) -> bytes:
    """FragSessionStatusReq to which nodes answer that have everything too."""
    return bytes([_STATUS, index << 1 | 1])


def data_fragment(number: int, data: bytes, *, index: int = 0) -> bytes:
    """DataFragment; numbers from 1."""
    _check("fragment number", number, 1, NUMBER_MAX)
    return bytes([_DATA]) + (index << 14 | number).to_bytes(2, "little") + data


def number_of(frame: bytes) -> int | None:
    """The number of a DataFragment; None for another command."""
    if len(frame) < 3 or frame[0] != _DATA:
        return None
    return int.from_bytes(frame[1:3], "little") & NUMBER_MAX


def is_setup(frame: bytes) -> bool:
    return frame[:1] == bytes([_SETUP])


def is_status(frame: bytes) -> bool:
    return frame[:1] == bytes([_STATUS])


def read_answers(data: bytes) -> list[Answer]:
    """All answers of one uplink; a node may put several into one. Raises FragmentationError."""
    answers, at = [], 0
    while at < len(data):
        answer, used = _read_answer(data[at:])
        answers.append(answer)
        at += used
    return answers


def _read_answer(data: bytes) -> tuple[Answer, int]:
    lengths = {_PACKAGE_VERSION: 3, _STATUS: 5, _SETUP: 2, _DELETE: 2}
    length = lengths.get(data[0])
    if length is None:
        raise FragmentationError(f"command: {data[0]:#04x} is no answer of TS004-1.0.0")
    if len(data) < length:
        raise FragmentationError(f"answer {data[0]:#04x}: {len(data)} bytes, must be {length}")
    if data[0] == _PACKAGE_VERSION:
        return PackageVersion(data[1], data[2]), length
    if data[0] == _STATUS:
        counted = int.from_bytes(data[1:3], "little")
        return StatusAnswer(counted >> 14, counted & NUMBER_MAX, data[3], bool(data[4] & 1)), length
    bits = data[1]
    if data[0] == _DELETE:
        return DeleteAnswer(bits & 3, bool(bits & 4)), length
    return SetupAnswer(bits >> 6, bool(bits & 1), bool(bits & 2), bool(bits & 4), bool(bits & 8)), length


@dataclass(frozen=True)
class Block:
    """A block of bytes as a session carries it. Raises FragmentationError where it needs too many fragments."""

    data: bytes
    fragment_bytes: int
    dialect: Dialect

    def __post_init__(self) -> None:
        _check("fragment size", self.fragment_bytes, 1, FRAGMENT_BYTES_MAX)
        _check("fragments", self.fragments, 1, NUMBER_MAX)

    @property
    def fragments(self) -> int:
        return ceil(len(self.data) / self.fragment_bytes)

    @property
    def padding(self) -> int:
        return self.fragments * self.fragment_bytes - len(self.data)

    def payload(self, number: int) -> bytes:
        """Of fragment `number`: 1..M the block's own bytes, zero padded; above M parity."""
        _check("fragment number", number, 1, NUMBER_MAX)
        if number <= self.fragments:
            return self._row(number - 1)
        mixed = 0
        for position in parity_positions(number - self.fragments, self.fragments, self.dialect):
            mixed ^= int.from_bytes(self._row(position), "big")
        return mixed.to_bytes(self.fragment_bytes, "big")

    def _row(self, index: int) -> bytes:
        start = index * self.fragment_bytes
        return self.data[start : start + self.fragment_bytes].ljust(self.fragment_bytes, b"\0")


@lru_cache(maxsize=4096)
def parity_positions(number: int, fragments: int, dialect: Dialect) -> tuple[int, ...]:
    """Which fragments (from 0) parity `number` (from 1) is the sum of."""
    positions: set[int] = set()
    counted = 0
    for position in _drawn(1 + 1001 * number, fragments):
        if counted >= fragments // 2:
            break
        if dialect is Dialect.V1 or position not in positions:
            counted += 1
        positions.add(position)
    return tuple(sorted(positions))


def _drawn(seed: int, fragments: int) -> Iterator[int]:
    """Positions below `fragments` from the 23-bit pseudo-random sequence of TS004; never ends."""
    # A power of two would meet the period of the sequence.
    modulus = fragments + 1 if fragments & (fragments - 1) == 0 else fragments
    x = seed
    while True:
        position = 1 << 16
        while position >= fragments:
            x = (x >> 1) + (((x & 1) ^ (x >> 5 & 1)) << 22)
            position = x % modulus
        yield position


def _check(field: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise FragmentationError(f"{field}: {value}, must be {least}..{most}")
