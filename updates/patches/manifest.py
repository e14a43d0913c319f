"""The manifest: the signed statement that travels with a patch, as COSE_Sign1 (RFC 9052, 4.2) with Ed25519.

Contents follow the SUIT information model (RFC 9124): class, base (precondition digest), target digest and size,
sequence number.
The envelope is the untagged COSE_Sign1: a bundle has only this at its place, so tag 18 would tell nothing and cost one
byte of airtime. All CBOR is in its deterministic encoding (RFC 8949, 4.2.1); anything else is refused.
"""

from __future__ import annotations

from dataclasses import dataclass

import cbor2

from fleet.strict_cbor import CborError, Reader
from updates.patches.codec import Codec
from updates.patches.signing import KEY_ID_BYTES, SIGNATURE_BYTES, Signer, TrustedKeys

FORMAT = 1
SIGNED_BYTES_MAX = 192
FIELDS = 11
BASE_PREFIX_BYTES = 8
GUARD_BOUNDS_MAX = 5
UINT32_MAX = 0xFFFF_FFFF

_PROTECTED = bytes.fromhex("a10127")  # {1 (algorithm): -8 (EdDSA)}
_PROTECTED_ITEM = bytes.fromhex("43") + _PROTECTED
_KEY_ID_HEADER = bytes.fromhex("a10444")  # {4 (key id): 4 bytes}


class ManifestInvalid(ValueError):
    """Not a manifest in its one valid encoding; the message names the field."""


class KeyUnknown(ManifestInvalid):
    """The key id names no trusted key."""


class SignatureInvalid(ManifestInvalid):
    """The key is trusted, the signature is not its own."""


@dataclass(frozen=True)
class Guard:
    """When the node's heuristic decides instead of the network: all in per mille of full scale.

    `threshold`: least confidence, 0..1000. `bounds`: up to 5 limits of the inputs, -1000..1000; what each means belongs
    to the class.
    """

    threshold: int
    bounds: tuple[int, ...] = ()


@dataclass(frozen=True)
class Manifest:
    """The fields in the order in which they are signed. A wrong length or range raises ManifestInvalid."""

    model_id: bytes  # 4 bytes
    base_prefix: bytes  # first 8 bytes of SHA-256(base image); empty exactly for a full image
    target_digest: bytes  # SHA-256 of the target image
    target_size: int  # bytes, 1..2**32-1
    sequence: int  # of the assignment, 1..2**32-1; always rises
    class_hash: bytes  # 4 bytes: runtime, ABI, op set, I/O and preprocessing
    codec: int  # 0..255, see updates.patches.codec
    self_test_digest: bytes  # 8 bytes
    revert_hash: bytes  # 16 bytes
    guard: Guard | None = None

    def __post_init__(self) -> None:
        decoded = _read_payload(self.payload())
        if decoded != tuple(getattr(self, name) for name in self.__dataclass_fields__):
            raise ManifestInvalid("manifest: a field has a type that CBOR turns into another one")

    def payload(self) -> bytes:
        """The CBOR array that is signed."""
        guard = None if self.guard is None else [self.guard.threshold, *self.guard.bounds]
        return cbor2.dumps(
            [
                FORMAT,
                self.model_id,
                self.base_prefix,
                self.target_digest,
                self.target_size,
                self.sequence,
                self.class_hash,
                self.codec,
                self.self_test_digest,
                self.revert_hash,
                guard,
            ]
        )


@dataclass(frozen=True)
class Envelope:
    """A COSE_Sign1 taken apart; nothing in it is trusted yet."""

    key_id: bytes
    payload: bytes
    signature: bytes


def signed_message(payload: bytes) -> bytes:
    """The Sig_structure that is signed (RFC 9052, 4.4), with no external data."""
    return cbor2.dumps(["Signature1", _PROTECTED, b"", payload])


def sign_manifest(manifest: Manifest, signer: Signer) -> bytes:
    """The COSE_Sign1, at most 192 bytes. Raises ManifestInvalid where the signer gives a wrong key id or signature."""
    payload = manifest.payload()
    signature = signer.sign(signed_message(payload))
    if len(signer.key_id) != KEY_ID_BYTES or len(signature) != SIGNATURE_BYTES:
        raise ManifestInvalid(f"signer: key id must have {KEY_ID_BYTES} bytes and signature {SIGNATURE_BYTES}")
    signed = b"\x84" + _PROTECTED_ITEM + _KEY_ID_HEADER + signer.key_id + cbor2.dumps(payload) + cbor2.dumps(signature)
    if len(signed) > SIGNED_BYTES_MAX:
        raise ManifestInvalid(f"manifest: {len(signed)} bytes when signed, must be at most {SIGNED_BYTES_MAX}")
    return signed


def read_envelope(signed: bytes) -> Envelope:
    """Take a COSE_Sign1 apart without judging it. Raises ManifestInvalid."""
    if len(signed) > SIGNED_BYTES_MAX:
        raise ManifestInvalid(f"manifest: {len(signed)} bytes, must be at most {SIGNED_BYTES_MAX}")
    reader = Reader(signed)
    try:
        reader.array("envelope", 4, 4)
        reader.literal("protected header", _PROTECTED_ITEM)
        reader.literal("unprotected header", _KEY_ID_HEADER)
        # The head of the key id is part of the literal above.
        key_id = reader.take(KEY_ID_BYTES, "key id")
        payload = reader.byte_string("payload")
        signature = reader.byte_string("signature", SIGNATURE_BYTES)
        reader.end("envelope")
    except CborError as error:
        raise ManifestInvalid(str(error)) from error
    return Envelope(key_id, payload, signature)


def decode_manifest(signed: bytes, keys: TrustedKeys) -> Manifest:
    """The manifest, once its signature holds under a trusted key.

    Raises ManifestInvalid for a wrong encoding, KeyUnknown or SignatureInvalid; the payload is read only after the
    signature is proved.
    """
    envelope = read_envelope(signed)
    if envelope.key_id not in keys:
        raise KeyUnknown(f"key id: {envelope.key_id.hex()} is not a trusted key")
    if not keys.verify(envelope.key_id, envelope.signature, signed_message(envelope.payload)):
        raise SignatureInvalid(f"signature: not made by the key {envelope.key_id.hex()}")
    return Manifest(*_read_payload(envelope.payload))


def _read_payload(
    payload: bytes,
) -> tuple[bytes, bytes, bytes, int, int, bytes, int, bytes, bytes, Guard | None]:
    reader = Reader(payload)
    try:
        reader.array("payload", FIELDS, FIELDS)
        reader.integer("format", FORMAT, FORMAT)
        model_id = reader.byte_string("model id", 4)
        base_prefix = reader.byte_string("base digest prefix", 0, BASE_PREFIX_BYTES)
        target_digest = reader.byte_string("target digest", 32)
        target_size = reader.integer("target size", 1, UINT32_MAX)
        sequence = reader.integer("sequence", 1, UINT32_MAX)
        class_hash = reader.byte_string("class hash", 4)
        codec = reader.integer("codec", 0, 255)
        self_test_digest = reader.byte_string("self-test digest", 8)
        revert_hash = reader.byte_string("revert hash", 16)
        guard = None if reader.nil() else _read_guard(reader)
        reader.end("payload")
    except CborError as error:
        raise ManifestInvalid(str(error)) from error
    if (codec == Codec.FULL_IMAGE) != (base_prefix == b""):
        raise ManifestInvalid(
            f"base digest prefix: {len(base_prefix)} bytes with codec {codec}, must be empty for codec 0 and only then"
        )
    return (
        model_id,
        base_prefix,
        target_digest,
        target_size,
        sequence,
        class_hash,
        codec,
        self_test_digest,
        revert_hash,
        guard,
    )


def _read_guard(reader: Reader) -> Guard:
    count = reader.array("guard", 1, 1 + GUARD_BOUNDS_MAX)
    threshold = reader.integer("guard threshold", 0, 1000)
    return Guard(threshold, tuple(reader.integer("guard bound", -1000, 1000) for _ in range(count - 1)))
