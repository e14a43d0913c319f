"""API keys: HS256 JSON web tokens with the claims of ChirpStack."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json


class TokenInvalid(ValueError):
    """The message is what ChirpStack answers."""


def issue(key_id: str, secret: bytes) -> str:
    """A token without end for an API key."""
    head = _encode({"typ": "JWT", "alg": "HS256"})
    body = _encode({"aud": "chirpstack", "iss": "chirpstack", "sub": key_id, "typ": "key"})
    return f"{head}.{body}.{_sign(head, body, secret)}"


def key_id(token: str, secret: bytes) -> str:
    """The id of the API key that a token speaks for. Raises TokenInvalid."""
    parts = token.split(".")
    if len(parts) != 3:
        raise TokenInvalid("InvalidToken")
    head, body, signature = parts
    try:
        algorithm, claims = _decode(head).get("alg"), _decode(body)
    except (ValueError, binascii.Error, AttributeError) as error:
        raise TokenInvalid("InvalidToken") from error
    if algorithm != "HS256":
        raise TokenInvalid("InvalidAlgorithm")
    if not hmac.compare_digest(signature, _sign(head, body, secret)):
        raise TokenInvalid("InvalidSignature")
    if claims.get("aud") != "chirpstack":
        raise TokenInvalid("InvalidAudience")
    if claims.get("typ") != "key":
        raise TokenInvalid(f"invalid token typ: {claims.get('typ')}")
    return str(claims.get("sub"))


def _encode(document: dict[str, str]) -> str:
    return base64.urlsafe_b64encode(json.dumps(document, separators=(",", ":")).encode()).rstrip(b"=").decode()


def _decode(part: str) -> dict[str, str]:
    document = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    if not isinstance(document, dict):
        raise ValueError("not a JSON object")
    return document


def _sign(head: str, body: str, secret: bytes) -> str:
    digest = hmac.new(secret, f"{head}.{body}".encode(), hashlib.sha256).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
