"""The command that sends a node back to its previous image, and the secret that alone can form it.

A manifest carries the first 16 bytes of SHA-256(preimage); the server keeps the preimage until it orders a revert.
The hash is one-way (RFC 6234), so a captured manifest does not let anybody else send nodes back.
"""

from __future__ import annotations

import hashlib

PREIMAGE_BYTES = 16
REVERT_HASH_BYTES = 16
REVERT_COMMAND = 0x01


def revert_hash(preimage: bytes) -> bytes:
    """The 16 bytes for the manifest. `preimage` is 16 random bytes, new for each manifest."""
    if len(preimage) != PREIMAGE_BYTES:
        raise ValueError(f"revert preimage: {len(preimage)} bytes, must be {PREIMAGE_BYTES}")
    return hashlib.sha256(preimage).digest()[:REVERT_HASH_BYTES]


def revert_command(preimage: bytes) -> bytes:
    """The 17 bytes on the link: 0x01 || preimage."""
    if len(preimage) != PREIMAGE_BYTES:
        raise ValueError(f"revert preimage: {len(preimage)} bytes, must be {PREIMAGE_BYTES}")
    return bytes([REVERT_COMMAND]) + preimage
