"""Messages of the model agent on port 26 that are not in `devices.wire`: digest parts and command answers up, and
the question for what a node holds down."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

PORT = 26
ASK = b"\x02"
DIGEST_BYTES = 32
DIGEST_PARTS_MAX = 8
_STATE, _HEALTH, _DIGEST, _ANSWER = 1, 2, 3, 4
_DIGEST_PART_BYTES_MAX = 34
_ANSWER_BYTES = 3


class FrameError(ValueError):
    """Bytes from a node break the contract; the message names the field."""


@dataclass(frozen=True)
class DigestPart:
    index: int
    count: int
    piece: bytes


@dataclass(frozen=True)
class CommandAnswer:
    """`result` 0: accepted; else the number of a cause."""

    command: int
    result: int


@dataclass(frozen=True)
class Report:
    """A state report or a health part, as `devices.wire` reads them."""

    payload: bytes
    is_state: bool


def read_frame(data: bytes) -> DigestPart | CommandAnswer | Report:
    """One uplink on port 26. Raises FrameError; a report is not looked into."""
    if not data:
        raise FrameError("port 26: empty, must have a kind in byte 0")
    kind = data[0] >> 4
    if kind in (_STATE, _HEALTH):
        return Report(data, kind == _STATE)
    if kind == _DIGEST:
        return _digest_part(data)
    if kind == _ANSWER:
        if len(data) != _ANSWER_BYTES:
            raise FrameError(f"command answer: {len(data)} bytes, must be {_ANSWER_BYTES}")
        return CommandAnswer(data[1], data[2])
    raise FrameError(f"kind: {kind}, must be {_STATE}..{_ANSWER}")


def _digest_part(data: bytes) -> DigestPart:
    if not 2 <= len(data) <= _DIGEST_PART_BYTES_MAX:
        raise FrameError(f"digest part: {len(data)} bytes, must be 2..{_DIGEST_PART_BYTES_MAX}")
    index, count = data[0] & 0x0F, data[1]
    if not index < count <= DIGEST_PARTS_MAX:
        raise FrameError(f"digest part: part {index} of {count}, at most {DIGEST_PARTS_MAX} are allowed")
    return DigestPart(index, count, data[2:])


def join_digest(count: int, parts: Mapping[int, tuple[int, bytes]]) -> bytes | None:
    """The digest (32 bytes, or none where the node has no image) from parts by index, each with its frame counter.

    None where parts are missing or belong to two digests. A node sends a digest's parts in one go and a state report
    after them, so parts whose counters fall, or lie further apart than that, were not sent together.
    """
    if set(parts) != set(range(count)):
        return None
    counters = [parts[index][0] - index for index in range(count)]
    # Interleaved frames only ever add; count + 1 would be the other parts and the report of an earlier digest.
    if any(later < earlier for earlier, later in pairwise(counters)):
        return None
    if counters[-1] - counters[0] > count:
        return None
    digest = b"".join(parts[index][1] for index in range(count))
    return digest if len(digest) in (0, DIGEST_BYTES) else None
