"""A node on the table: the shipped C code over flash in memory, set up as the published vectors say."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from devices.agent.build import build
from updates.patches.manifest import Manifest, sign_manifest
from updates.patches.revert import revert_hash
from updates.patches.signing import Ed25519Signer

build()
from devices.agent.native import Agent, Flash  # noqa: E402  (only there once compiled)

VECTORS: dict[str, Any] = json.loads((Path(__file__).parents[3] / "docs/vectors/manifest.json").read_text())
SIGNER = Ed25519Signer(Ed25519PrivateKey.from_private_bytes(bytes([1] * 32)))
PUBLIC_KEYS = [bytes.fromhex(key["public_key"]) for key in VECTORS["keys"]]
BASE = bytes.fromhex(VECTORS["node"]["active_image"])
CLASS_HASH = bytes.fromhex(VECTORS["node"]["class_hash"])
SELF_TEST = b"selftest"
TARGET = b"\x5a" * 777
PREIMAGE = b"p" * 16


def boot(flash: Flash, **options: Any) -> Agent:
    options.setdefault("codecs", tuple(VECTORS["node"]["codecs"]))
    return Agent(flash, class_hash=CLASS_HASH, public_keys=PUBLIC_KEYS, **options)


def manifest(sequence: int, target: bytes = TARGET, preimage: bytes = PREIMAGE) -> bytes:
    digest = hashlib.sha256(target).digest()
    unsigned = Manifest(b"mod1", b"", digest, len(target), sequence, CLASS_HASH, 0, SELF_TEST, revert_hash(preimage))
    return sign_manifest(unsigned, SIGNER)


def new_node(slot_size: int = 4096) -> Agent:
    flash = Flash(slot_size)
    flash.slots[0][: len(BASE)] = BASE
    return boot(flash, factory_size=len(BASE))


def stage(agent: Agent, sequence: int, target: bytes = TARGET, preimage: bytes = PREIMAGE) -> str:
    steps = [agent.begin(manifest(sequence, target, preimage))]
    steps += [agent.stage_write(at, target[at : at + 50]) for at in range(0, len(target), 50)]
    steps.append(agent.stage_finish())
    return next((step for step in steps if step != "none"), "none")


def install(agent: Agent, sequence: int, target: bytes = TARGET, preimage: bytes = PREIMAGE) -> str:
    steps = [stage(agent, sequence, target, preimage), agent.trial_begin(), agent.self_test_result(SELF_TEST)]
    return next((step for step in [*steps, agent.confirm()] if step != "none"), "none")


def vector_node() -> Agent:
    """The node of the vectors: its highest sequence is 7, reached over another image and the base once more."""
    agent = new_node()
    assert install(agent, 6) == "none"
    assert install(agent, 7, BASE) == "none"
    return agent
