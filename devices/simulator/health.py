"""The health report of a node in the bytes of docs/wire-contract.md, counted from inferences that it would make."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from devices.agent.native import HEALTH_PART_BYTES as PART_BYTES
from devices.agent.native import encode_health, health_parts

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
        """As the shipped code writes it. arena_bytes: what the runtime uses, 0: unknown."""
        # An input out of bounds is decided by the heuristic, so fallbacks count the same; there is no shadow run here.
        return encode_health(
            active_prefix=bytes.fromhex(self.active)[:4] or bytes(4),
            class_counts=self.class_counts,
            inferences=self.inferences,
            low_confidence=self.low_confidence,
            out_of_bounds=self.out_of_bounds,
            fallbacks=self.out_of_bounds,
            deadline_misses=self.deadline_misses,
            p99_latency_us=p99_us,
            resets=resets,
            sample_rate_error_ppm=rate_error_ppm,
            battery_mv=battery_mv,
            arena_used_bytes=arena_bytes,
        )


def fresh_counters(active: str, classes: int) -> Counters:
    """Zeros for an image that has just become active; at most 32 classes are counted."""
    return Counters(active, class_counts=[0] * min(classes, _CLASSES_MAX))


def split(report: bytes, report_id: int, part_bytes: int = PART_BYTES) -> list[bytes]:
    """Parts of at most `part_bytes` (4..36)."""
    return list(health_parts(report, report_id=report_id, part_bytes=min(part_bytes, PART_BYTES)))


def _events(count: int, probability: float, rng: random.Random) -> int:
    """How often a rare event came in `count` trials: its mean with a spread of a quarter, whole by chance."""
    return int(count * probability * rng.uniform(0.75, 1.25) + rng.random())
