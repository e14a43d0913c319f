"""A bundle: manifest and payload in one piece, what a link carries without looking inside.

Layout: manifest length (u16, big-endian) || COSE_Sign1 || payload (a patch or the full image, to the end).
"""

from __future__ import annotations

from dataclasses import dataclass

from updates.patches.manifest import SIGNED_BYTES_MAX

LENGTH_BYTES = 2
PAYLOAD_BYTES_MAX = 16 * 1024 * 1024


class BundleInvalid(ValueError):
    """The bytes are not a bundle; the message names the field."""


@dataclass(frozen=True)
class Bundle:
    """`manifest` is the COSE_Sign1 as signed (1..192 bytes), `payload` 1 byte to 16 MiB."""

    manifest: bytes
    payload: bytes


def pack_bundle(bundle: Bundle) -> bytes:
    """The bytes on the link. Raises BundleInvalid where a part is empty or too long."""
    _check(bundle)
    return len(bundle.manifest).to_bytes(LENGTH_BYTES, "big") + bundle.manifest + bundle.payload


def unpack_bundle(data: bytes) -> Bundle:
    """The two parts; looks into neither. Raises BundleInvalid."""
    if len(data) < LENGTH_BYTES:
        raise BundleInvalid(f"manifest length: the bundle has {len(data)} bytes, must have at least {LENGTH_BYTES}")
    end = LENGTH_BYTES + int.from_bytes(data[:LENGTH_BYTES], "big")
    if end > len(data):
        raise BundleInvalid(
            f"manifest length: {end - LENGTH_BYTES} bytes, the bundle has {len(data) - LENGTH_BYTES} left"
        )
    bundle = Bundle(data[LENGTH_BYTES:end], data[end:])
    _check(bundle)
    return bundle


def _check(bundle: Bundle) -> None:
    if not 1 <= len(bundle.manifest) <= SIGNED_BYTES_MAX:
        raise BundleInvalid(f"manifest: {len(bundle.manifest)} bytes, must be 1..{SIGNED_BYTES_MAX}")
    if not 1 <= len(bundle.payload) <= PAYLOAD_BYTES_MAX:
        raise BundleInvalid(f"payload: {len(bundle.payload)} bytes, must be 1..{PAYLOAD_BYTES_MAX}")
