"""Where a signing key may come from, and which signatures count."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from updates.patches.signing import (
    ENVIRONMENT_VARIABLE,
    Ed25519Signer,
    KeyUnusable,
    TrustedKeys,
    generate_key_file,
    key_id_of,
)

# RFC 8032, 7.1, test 2: secret, public key, message and signature.
SECRET = bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb")
PUBLIC = bytes.fromhex("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c")
SIGNATURE = bytes.fromhex(
    "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
    "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
)
PEM = (
    Ed25519PrivateKey.from_private_bytes(SECRET)
    .private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    .decode()
)
OTHER_KIND = generate_private_key(SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@pytest.mark.parametrize("text", [PEM, SECRET.hex(), f"  {SECRET.hex().upper()}\n"])
def test_the_environment_gives_the_key_as_pem_or_hexadecimal(text: str) -> None:
    signer = Ed25519Signer.from_environment({ENVIRONMENT_VARIABLE: text})
    assert (signer.public_key, signer.sign(b"\x72")) == (PUBLIC, SIGNATURE)


@pytest.mark.parametrize("content", [PEM.encode(), SECRET])
def test_a_file_gives_the_key_as_pem_or_raw(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "key").write_bytes(content)
    assert Ed25519Signer.from_file(tmp_path / "key").public_key == PUBLIC


@pytest.mark.parametrize("text", ["", SECRET.hex()[:-2], SECRET.hex() + "00", "zz" * 32, PEM[:60], OTHER_KIND.decode()])
def test_an_unusable_variable_is_named_and_its_content_is_not(text: str) -> None:
    with pytest.raises(KeyUnusable, match=ENVIRONMENT_VARIABLE) as refusal:
        Ed25519Signer.from_environment({ENVIRONMENT_VARIABLE: text})
    assert not text or text not in str(refusal.value)


@pytest.mark.parametrize("content", [b"", SECRET[:31], SECRET + b"\n", OTHER_KIND])
def test_an_unusable_file_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "key").write_bytes(content)
    with pytest.raises(KeyUnusable, match=str(tmp_path / "key")):
        Ed25519Signer.from_file(tmp_path / "key")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(KeyUnusable, match=r"absent.*No such file"):
        Ed25519Signer.from_file(tmp_path / "absent")


def test_two_keys_are_valid_at_once_and_no_third() -> None:
    old, new, stranger = (Ed25519Signer(Ed25519PrivateKey.generate()) for _ in range(3))
    trusted = TrustedKeys([old.public_key, new.public_key])
    verdicts = [trusted.verify(signer.key_id, signer.sign(b"m"), b"m") for signer in (old, new, stranger)]
    assert verdicts == [True, True, False]
    assert [signer.key_id in trusted for signer in (old, new, stranger)] == [True, True, False]


def test_a_signature_counts_only_for_its_own_key_and_message() -> None:
    first, second = (Ed25519Signer(Ed25519PrivateKey.generate()) for _ in range(2))
    trusted = TrustedKeys([first.public_key, second.public_key])
    assert not trusted.verify(second.key_id, first.sign(b"m"), b"m")
    assert not trusted.verify(first.key_id, first.sign(b"m"), b"n")


def test_trusted_keys_refuse_a_wrong_length_and_a_doubled_key() -> None:
    with pytest.raises(KeyUnusable, match="31 bytes, must be 32"):
        TrustedKeys([PUBLIC[:31]])
    with pytest.raises(KeyUnusable, match=key_id_of(PUBLIC).hex()):
        TrustedKeys([PUBLIC, PUBLIC])


def test_a_made_key_is_readable_by_its_owner_alone_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    made = generate_key_file(tmp_path / "key")
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["key"]
    assert Ed25519Signer.from_file(tmp_path / "key").public_key == made.public_key


def _make(path: Path, go: multiprocessing.synchronize.Barrier, found: multiprocessing.queues.Queue[bytes]) -> None:
    go.wait(60)
    found.put(generate_key_file(path).public_key)


def test_processes_that_start_together_agree_on_one_key(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    go, found = context.Barrier(2), context.Queue()
    workers = [context.Process(target=_make, args=(tmp_path / "key", go, found)) for _ in range(2)]
    for worker in workers:
        worker.start()
    keys = {found.get(timeout=60) for _ in workers}
    for worker in workers:
        worker.join(60)
    assert keys == {Ed25519Signer.from_file(tmp_path / "key").public_key}
