"""A gateway and a simulated fleet that talk over loopback UDP, for tests."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from devices.simulator.fleet import Fleet
from devices.simulator.node import Node
from devices.simulator.self_test import golden_outcome
from devices.simulator.spec import NodeSpec, Spec
from tests.integration.devices.coap_gateway import CoapGateway, until
from tests.integration.devices.tiny_model import tiny_model
from updates.patches.bundle import Bundle, pack_bundle
from updates.patches.codec import Codec, build_patch
from updates.patches.manifest import Manifest, sign_manifest
from updates.patches.revert import revert_hash
from updates.patches.signing import Ed25519Signer

OLD, TARGET = tiny_model(1), tiny_model(2)
OLD_DIGEST, TARGET_DIGEST = hashlib.sha256(OLD).hexdigest(), hashlib.sha256(TARGET).hexdigest()
CLASS = bytes.fromhex("aabbccdd")
PREIMAGE = b"p" * 16
SIGNER = Ed25519Signer(Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
TIME_SCALE = 20.0


def node_spec(endpoint: str = "node-1", **fields: Any) -> NodeSpec:
    """A node that wakes each 20 simulated seconds, a second of the tests, unless `fields` say otherwise."""
    values = {
        "class_hash": CLASS.hex(),
        "slot_bytes": 4096,
        "active": OLD_DIGEST,
        "wake_interval_s": 20.0,
        "awake_s": 10.0,
        "latency_s": 0.05,
        "jitter_s": 0.02,
        "block_bytes": 256,
        "ack_timeout_s": 2.0,
        "health_every_wakes": 1000,
    }
    return NodeSpec(endpoint=endpoint, **{**values, **fields})


def bundle(
    target: bytes = TARGET,
    *,
    base: bytes = b"",
    sequence: int = 7,
    class_hash: bytes = CLASS,
    self_test: bytes | None = None,
    signer: Ed25519Signer = SIGNER,
) -> bytes:
    """A signed bundle; a full image where there is no base."""
    patch = build_patch(base, target)
    full = patch.codec == Codec.FULL_IMAGE
    manifest = Manifest(
        model_id=b"tiny",
        base_prefix=b"" if full else hashlib.sha256(base).digest()[:8],
        target_digest=hashlib.sha256(target).digest(),
        target_size=len(target),
        sequence=sequence,
        class_hash=class_hash,
        codec=patch.codec,
        self_test_digest=golden_outcome(target).digest if self_test is None else self_test,
        revert_hash=revert_hash(PREIMAGE),
    )
    return pack_bundle(Bundle(sign_manifest(manifest, signer), patch.payload))


def make_fleet(
    gateway: CoapGateway, directory: Path, *nodes: NodeSpec, seed: int = 1, time_scale: float = TIME_SCALE
) -> Fleet:
    spec = Spec([SIGNER.public_key], {OLD_DIGEST: OLD, TARGET_DIGEST: TARGET}, list(nodes))
    return Fleet(spec, server=gateway.address, time_scale=time_scale, seed=seed, directory=directory)


@contextlib.asynccontextmanager
async def running(fleet: Fleet) -> AsyncIterator[Fleet]:
    """The fleet living in the background; what went wrong in a node fails the test."""
    stop = asyncio.Event()
    task = asyncio.create_task(fleet.run(stop))
    try:
        yield fleet
    finally:
        stop.set()
        await task


@contextlib.asynccontextmanager
async def one_node(directory: Path, **fields: Any) -> AsyncIterator[tuple[CoapGateway, Node]]:
    """A gateway and one node that has registered."""
    async with CoapGateway() as gateway, running(make_fleet(gateway, directory, node_spec(**fields))) as fleet:
        node = fleet.nodes["node-1"]
        await until(lambda: gateway.states())
        yield gateway, node


def play(scene: Coroutine[Any, Any, None]) -> None:
    """Run one test's scene to its end, at most a minute."""

    async def bounded() -> None:
        await asyncio.wait_for(scene, 60)

    asyncio.run(bounded())
