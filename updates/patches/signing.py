"""Keys that sign manifests (Ed25519, RFC 8032), behind an interface so that an HSM or offline signer can stand in."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Protocol

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

KEY_ID_BYTES = 4
SIGNATURE_BYTES = 64
ENVIRONMENT_VARIABLE = "MODELFLEET_SIGNING_KEY"


class KeyUnusable(ValueError):
    """A key cannot be read; the message names where it came from and what is wanted, never the key."""


class Signer(Protocol):
    """Signs manifests under one key."""

    @property
    def key_id(self) -> bytes:
        """4 bytes: the first of SHA-256(public key)."""

    def sign(self, message: bytes) -> bytes:
        """The 64-byte Ed25519 signature of message."""


def key_id_of(public_key: bytes) -> bytes:
    """The 4-byte id of a 32-byte Ed25519 public key."""
    return hashlib.sha256(public_key).digest()[:KEY_ID_BYTES]


class Ed25519Signer:
    """A signer whose private key is in this process."""

    def __init__(self, private_key: Ed25519PrivateKey) -> None:
        self._private_key = private_key
        self.public_key: bytes = private_key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)

    @property
    def key_id(self) -> bytes:
        return key_id_of(self.public_key)

    def sign(self, message: bytes) -> bytes:
        return self._private_key.sign(message)

    @classmethod
    def from_file(cls, path: Path) -> Ed25519Signer:
        """From a file with an unencrypted PKCS#8 PEM key or the 32 raw bytes. Raises KeyUnusable."""
        try:
            return cls(_load(path.read_bytes(), str(path)))
        except OSError as error:
            raise KeyUnusable(
                f"signing key {path}: {error.strerror}; make one or set {ENVIRONMENT_VARIABLE}"
            ) from error

    @classmethod
    def from_environment(cls, environment: Mapping[str, str], name: str = ENVIRONMENT_VARIABLE) -> Ed25519Signer:
        """From a variable with the PEM text or the 32 bytes as 64 hexadecimal digits. Raises KeyUnusable."""
        text = environment.get(name, "").strip()
        if not text:
            raise KeyUnusable(f"{name}: not set, must hold a PEM key or 64 hexadecimal digits")
        if text.startswith("-----"):
            return cls(_load(text.encode(), name))
        try:
            return cls(_load(bytes.fromhex(text), name))
        except ValueError as error:
            raise KeyUnusable(f"{name}: neither a PEM key nor 64 hexadecimal digits") from error


def _load(data: bytes, source: str) -> Ed25519PrivateKey:
    if len(data) == 32:
        return Ed25519PrivateKey.from_private_bytes(data)
    try:
        key = load_pem_private_key(data, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise KeyUnusable(f"{source}: neither an unencrypted PEM private key nor 32 raw bytes") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyUnusable(f"{source}: the key is not Ed25519; make one with `openssl genpkey -algorithm ed25519`")
    return key


def generate_key_file(path: Path) -> Ed25519Signer:
    """Make a key and write it as PEM, readable by its owner only; an existing file is kept and read instead.

    The file appears whole or not at all, and two processes that start together agree on one key.
    """
    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # made with mode 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(pem)
            file.flush()
            os.fsync(file.fileno())
        # A link fails where the name exists; a rename would replace the key that another process has just made.
        Path(path).hardlink_to(temporary)
    except FileExistsError:
        return Ed25519Signer.from_file(path)
    finally:
        Path(temporary).unlink()
    return Ed25519Signer(key)


class TrustedKeys:
    """Public keys that are valid at the same time, found by key id: this is how a key is rotated."""

    def __init__(self, public_keys: Iterable[bytes]) -> None:
        """Takes 32-byte Ed25519 public keys; raises KeyUnusable for another length or two keys of one id."""
        self._keys: dict[bytes, Ed25519PublicKey] = {}
        for public_key in public_keys:
            if len(public_key) != 32:
                raise KeyUnusable(f"public key: {len(public_key)} bytes, must be 32")
            if key_id_of(public_key) in self._keys:
                raise KeyUnusable(f"public key: two keys have the id {key_id_of(public_key).hex()}, use another key")
            self._keys[key_id_of(public_key)] = Ed25519PublicKey.from_public_bytes(public_key)

    def __contains__(self, key_id: bytes) -> bool:
        return key_id in self._keys

    def verify(self, key_id: bytes, signature: bytes, message: bytes) -> bool:
        """Whether the key of this id made the signature; False for an unknown id."""
        key = self._keys.get(key_id)
        if key is None:
            return False
        try:
            key.verify(signature, message)
        except InvalidSignature:
            return False
        return True
