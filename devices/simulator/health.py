"""The health report of a node in the bytes of docs/wire-contract.md, counted from inferences that it would make."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import cbor2

PART_BYTES, _HEADER_BYTES = 36, 3
_CLASSES_MAX = 32
_UINT32_MAX = 0xFFFF_FFFF
_INFERENCES_PER_SECOND = 0.5
_LOW_CONFIDENCE, _OUT_OF_BOUNDS, _DEADLINE_MISSED = 0.02, 0.002, 0.0005


@dataclass
class Counters:
    """Since the image was activated."""

    active: str = ""  # digest in hex of the image that these speak of
    inferences: int = 0
    class_counts: list[int] = field(default_factory=list)
    low_confidence: int = 0
    out_of_bounds: int = 0
    deadline_misses: int = 0

    def add(self, seconds: float, rng: random.Random) -> None:
        """`seconds` of work more."""
        count = int(seconds * _INFERENCES_PER_SECOND)
        self.inferences = min(self.inferences + count, _UINT32_MAX)
        for _ in range(10 if self.class_counts else 0):  # ten runs of one activity each, not a draw an inference
            self.class_counts[rng.randrange(len(self.class_counts))] += count // 10
        self.low_confidence += _events(count, _LOW_CONFIDENCE, rng)
        self.out_of_bounds += _events(count, _OUT_OF_BOUNDS, rng)
        self.deadline_misses += _events(count, _DEADLINE_MISSED, rng)

    def encode(self, *, resets: int, p99_us: int, rate_error_ppm: int, battery_mv: int, arena_bytes: int) -> bytes:
        """arena_bytes: what the runtime uses, 0: unknown, which only the first layout can say nothing of."""
        prefix = bytes.fromhex(self.active)[:4] or bytes(4)
        # An input out of bounds is decided by the heuristic, so fallbacks count the same; there is no shadow run here.
        counters = [self.inferences, self.class_counts, self.low_confidence, self.out_of_bounds, self.out_of_bounds, 0]
        items = [prefix, *counters, self.deadline_misses, p99_us, resets, rate_error_ppm, battery_mv]
        return cbor2.dumps([2, *items, arena_bytes, None] if arena_bytes else [1, *items, None])


def fresh_counters(active: str, classes: int) -> Counters:
    """Zeros for an image that has just become active; at most 32 classes are counted."""
    return Counters(active, class_counts=[0] * min(classes, _CLASSES_MAX))


def split(report: bytes, report_id: int, part_bytes: int = PART_BYTES) -> list[bytes]:
    """Parts of at most `part_bytes` (4..36): kind and index, report id, count, piece."""
    room = min(part_bytes, PART_BYTES) - _HEADER_BYTES
    pieces = [report[at : at + room] for at in range(0, len(report), room)]
    return [bytes([0x20 | index, report_id, len(pieces)]) + piece for index, piece in enumerate(pieces)]


def _events(count: int, probability: float, rng: random.Random) -> int:
    """How often a rare event came in `count` trials: its mean with a spread of a quarter, whole by chance."""
    return int(count * probability * rng.uniform(0.75, 1.25) + rng.random())
