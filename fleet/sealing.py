"""Secrets at rest: sealed with a key that is derived from SECRET_KEY and never stored."""

from __future__ import annotations

import base64

from cryptography.fernet import Fernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.conf import settings


def _fernet(purpose: str) -> Fernet:
    key = HKDF(algorithm=SHA256(), length=32, salt=None, info=purpose.encode()).derive(settings.SECRET_KEY.encode())
    return Fernet(base64.urlsafe_b64encode(key))


def seal(secret: bytes, *, purpose: str) -> bytes:
    return _fernet(purpose).encrypt(secret)


def unseal(sealed: bytes, *, purpose: str) -> bytes:
    """Raises cryptography.fernet.InvalidToken where SECRET_KEY is not the one that sealed it."""
    return _fernet(purpose).decrypt(sealed)
