"""Signed JSON that any JOSE library verifies: a flattened JWS (RFC 7515 7.2.2) with Ed25519 (EdDSA, RFC 8037).

A manifest's signature can never stand for one of these, nor the other way round: a COSE signing input begins with a CBOR
array (0x84), this one with base64url text.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any

from updates.patches.signing import Signer, TrustedKeys

ALGORITHM = "EdDSA"


class NotGenuine(ValueError):
    """`str()` says what is wrong with the signature or the form."""


def sign_json(document: Mapping[str, Any], signer: Signer, *, kind: str) -> dict[str, str]:
    """The members `protected`, `payload`, `signature`. kind: the `typ` of the header, which says what was signed."""
    header = {"alg": ALGORITHM, "kid": signer.key_id.hex(), "typ": kind}
    protected, payload = (_encode(json.dumps(part, sort_keys=True).encode()) for part in (header, document))
    signature = signer.sign(f"{protected}.{payload}".encode())
    return {"payload": payload, "protected": protected, "signature": _encode(signature)}


def open_json(signed: object, *, keys: TrustedKeys, kind: str) -> dict[str, Any]:
    """The document, if one of `keys` signed it as this kind. Raises NotGenuine."""
    if not isinstance(signed, Mapping) or not all(
        isinstance(signed.get(name), str) for name in ("protected", "payload", "signature")
    ):
        raise NotGenuine("it is no flattened JWS with protected, payload and signature")
    header = _json(signed["protected"])
    if header.get("alg") != ALGORITHM or header.get("typ") != kind:
        raise NotGenuine(f"it is signed as {header.get('typ')} by {header.get('alg')}, not as {kind} by {ALGORITHM}")
    key_id = _key_id(header)
    if key_id not in keys:
        raise NotGenuine(f"the key {key_id.hex()} is not one of those that are trusted here")
    if not keys.verify(key_id, _decode(signed["signature"]), f"{signed['protected']}.{signed['payload']}".encode()):
        raise NotGenuine("the signature is not that of these bytes")
    return _json(signed["payload"])


def _key_id(header: Mapping[str, Any]) -> bytes:
    try:
        return bytes.fromhex(str(header.get("kid")))
    except ValueError as error:
        raise NotGenuine(f"kid {header.get('kid')!r} is no key id") from error


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise NotGenuine(f"it is not base64url ({error})") from error


def _json(text: str) -> dict[str, Any]:
    try:
        value = json.loads(_decode(text))
    except ValueError as error:
        raise NotGenuine(f"it holds no JSON ({error})") from error
    if not isinstance(value, dict):
        raise NotGenuine("its JSON is no object")
    return value
