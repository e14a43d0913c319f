"""Golden inputs and the digest of what they must give; node and server compute it alike (docs/self-test.md)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

GOLDEN_INPUTS = 4


def golden_input(number: int, size: int) -> bytes:
    """`size` bytes, read as the input tensor (int8, or int16 little-endian).

    SHA-256 over a label, the number and a rising block counter.
    """
    blocks = []
    for counter in range(-(-size // 32)):
        block = b"modelfleet-golden" + number.to_bytes(1, "big") + counter.to_bytes(4, "big")
        blocks.append(hashlib.sha256(block).digest())
    return b"".join(blocks)[:size]


def digest(run: Callable[[bytes], bytes], input_bytes: int) -> str:
    """16 hex digits: the first 8 bytes of SHA-256 over the raw outputs of golden inputs 0 to 3, in that order."""
    outputs = b"".join(run(golden_input(number, input_bytes)) for number in range(GOLDEN_INPUTS))
    return hashlib.sha256(outputs).digest()[:8].hex()
