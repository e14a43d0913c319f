"""Small patches that hold every kind of op, for the fuzzer in tests/long and the vectors in docs/."""

from __future__ import annotations

import numpy as np

from devices.agent.patch_codec import Op, OpKind, Profile, encode

Seed = tuple[str, Profile, bytes, bytes, tuple[Op, ...]]


def seeds() -> list[Seed]:
    """Name, profile, base (200 to 400 bytes), target and ops."""
    random = np.random.default_rng(5)
    weights = random.normal(0, 25, 12 * 18).clip(-127, 127).astype(np.int8)
    tuned = (weights + np.rint(np.outer(random.normal(0, 1, 12), random.normal(0, 1, 18))).ravel()).astype(np.int8)
    words = random.integers(-4000, 4000, 12).astype("<i4")
    scales = random.uniform(0.001, 0.01, 12).astype("<f4")
    base = scales.tobytes() + words.tobytes() + weights.tobytes()
    target = (scales * np.float32(1.01)).astype("<f4").tobytes()
    target += np.rint(words * 0.9).astype("<i4").tobytes() + tuned.tobytes()
    tensors = {
        "rows": (Op(OpKind.FLOATS, 12), Op(OpKind.INTEGERS, 12, offset=48), Op(OpKind.ROWS, 12, 18, 2, 96)),
        "columns": (Op(OpKind.FLOATS, 12), Op(OpKind.INTEGERS_RATIO, 12, offset=48), Op(OpKind.COLUMNS, 18, 12, 0, 96)),
        "fresh": (Op(OpKind.LITERAL, 96), Op(OpKind.FRESH, 12, 18)),
        "bytes": (Op(OpKind.BYTES, 200), Op(OpKind.LITERAL, 112)),
        "linear": (Op(OpKind.FLOATS, 12), Op(OpKind.INTEGERS_SCALED, 12, offset=48), Op(OpKind.LINEAR, 12, 18, 6, 96)),
    }
    found: list[Seed] = [
        (f"{name} {profile.name}", profile, base, target, ops)
        for name, ops in tensors.items()
        for profile in Profile
        if name != "linear" or profile is Profile.L
    ]
    text = (
        base[:96]
        + b"repeats and repeats and " * 3
        + bytes(range(64))
        + b"repeats and repeats and repeats"
        + base[96:204]
    )
    copies = (
        Op(OpKind.SAME_WORDS, 24),
        Op(OpKind.LITERAL, 136),
        Op(OpKind.EARLIER, 31, offset=96),
        Op(OpKind.SAME_ROWS, 3, 18, offset=96),
        Op(OpKind.SAME_COLUMNS, 18, 2, offset=150),
        Op(OpKind.COPY, 18, offset=186),
    )
    return found + [(f"copies {profile.name}", profile, base, text, copies) for profile in Profile]


def patch_of(seed: Seed) -> bytes:
    _, profile, base, target, ops = seed
    return encode(profile, base, target, ops)[0]
