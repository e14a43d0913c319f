"""Signed JSON opens under the right key and kind only, and any JOSE library could check it."""

from __future__ import annotations

import base64
import json

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from updates.patches.jws import NotGenuine, open_json, sign_json
from updates.patches.signing import Ed25519Signer, TrustedKeys

SIGNER, OTHER = (Ed25519Signer(Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32)) for n in (1, 2))
DOCUMENT = {"verdict": "passed", "margin": 0.125, "Größe": None}
KEYS = TrustedKeys([SIGNER.public_key, OTHER.public_key])


def changed(part: str, value: object) -> dict[str, object]:
    return {**sign_json(DOCUMENT, SIGNER, kind="a"), part: value}


def encoded(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def test_what_was_signed_comes_back_whole() -> None:
    assert open_json(sign_json(DOCUMENT, SIGNER, kind="a"), keys=KEYS, kind="a") == DOCUMENT


def test_the_example_of_rfc_8037_gives_its_signature() -> None:
    """RFC 8037 appendix A.4: its key, its header and payload as they stand there."""
    secret = base64.urlsafe_b64decode("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=")
    signer = Ed25519Signer(Ed25519PrivateKey.from_private_bytes(secret))
    signing_input = b"eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc"

    signature = base64.urlsafe_b64encode(signer.sign(signing_input)).rstrip(b"=")

    assert signature == b"hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg"


@pytest.mark.parametrize(
    ("signed", "words"),
    [
        (changed("payload", encoded({**DOCUMENT, "verdict": "failed"})), "signature is not that of these bytes"),
        (changed("protected", encoded({"alg": "EdDSA", "kid": OTHER.key_id.hex(), "typ": "a"})), "not that of these"),
        (changed("protected", encoded({"alg": "none", "typ": "a"})), "by none, not as a by EdDSA"),
        (
            changed("protected", encoded({"alg": "EdDSA", "kid": "ffffffff", "typ": "a"})),
            "ffffffff is not one of those",
        ),
        (changed("protected", encoded({"alg": "EdDSA", "kid": "key", "typ": "a"})), "no key id"),
        (changed("signature", "!"), "not base64url"),
        (changed("protected", encoded([])), "no object"),
        (changed("payload", 1), "no flattened JWS"),
        ([], "no flattened JWS"),
    ],
)
def test_anything_else_is_refused_with_what_is_wrong(signed: object, words: str) -> None:
    with pytest.raises(NotGenuine, match=words):
        open_json(signed, keys=KEYS, kind="a")


def test_a_document_of_another_kind_does_not_stand_for_this_one() -> None:
    with pytest.raises(NotGenuine, match="signed as b"):
        open_json(sign_json(DOCUMENT, SIGNER, kind="b"), keys=KEYS, kind="a")
