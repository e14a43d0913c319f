"""The golden self-test: the same inputs, made from the target digest on both sides, must give the same output bytes.

The inputs are never sent, so the test costs the 8 bytes of its digest in the manifest.
"""

from __future__ import annotations

import hashlib

WINDOWS = 4
DIGEST_BYTES = 8


def golden_inputs(target_digest: bytes, input_bytes: int) -> list[bytes]:
    """4 raw input tensors of input_bytes each, cut from one stream.

    Block i of the stream is SHA-256(target digest || i as u32 big-endian), i from 0. `target_digest` is the SHA-256 of
    the target image (32 bytes). Raw bytes are read as the int8 values of the quantized input.
    """
    wanted = WINDOWS * input_bytes
    stream = b"".join(
        hashlib.sha256(target_digest + block.to_bytes(4, "big")).digest() for block in range((wanted + 31) // 32)
    )
    return [stream[at : at + input_bytes] for at in range(0, wanted, input_bytes)]


def self_test_digest(outputs: list[bytes]) -> bytes:
    """First 8 bytes of SHA-256 over the raw output tensors, window after window."""
    return hashlib.sha256(b"".join(outputs)).digest()[:DIGEST_BYTES]
