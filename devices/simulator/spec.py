"""What to simulate: the specification file."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from devices.simulator.network import Radio
from devices.simulator.package import CODECS

BEHAVIOURS = ("normal", "wrong-base", "failing-self-test", "reboot", "liar", "silent", "never", "lost-previous")


class SpecInvalid(ValueError):
    """The specification cannot be simulated; the message names the field and the fix."""


@dataclass(frozen=True)
class NodeSpec:
    """One node. `active`: SHA-256 of the image that it leaves the factory with, in hex.

    Behaviours: `wrong-base` is `normal` (its `active` is not what the server believes); `failing-self-test` computes
    wrong numbers, so it reverts; `reboot` resets once in mid-download; `liar` reports an update that it never made;
    `silent` goes for good when it is offered an update; `never` never comes.
    """

    endpoint: str
    class_hash: str  # 4 bytes in hex
    slot_bytes: int
    active: str
    behaviour: str = "normal"
    wake_interval_s: float = 600.0
    awake_s: float = 93.0  # stays awake so long after the last datagram; what a gateway assumes too
    lifetime_s: int = 86400
    firmware_build: str = "simulated-1"
    patch_decoder: str = "l"  # what its firmware is built with: none, s or l
    link: str = "nbiot"
    lwm2m: str = "1.1"  # a 1.0 client has no Send: the server reads its reports
    loss: float = 0.0
    latency_s: float = 0.5
    jitter_s: float = 0.1
    nat_idle_s: float = 60.0
    ack_timeout_s: float = 4.0
    block_bytes: int = 512
    deduplicate: bool = True
    health_every_wakes: int = 4

    @property
    def radio(self) -> Radio:
        return Radio(self.loss, self.latency_s, self.jitter_s, self.nat_idle_s)


@dataclass(frozen=True)
class Spec:
    """`images`: bytes by digest in hex; only those that a node starts with are needed."""

    public_keys: list[bytes]
    images: dict[str, bytes]
    nodes: list[NodeSpec]


def read_spec(path: Path) -> Spec:
    """The specification in a JSON file. Raises SpecInvalid."""
    try:
        document = json.loads(path.read_text())
        keys = [bytes.fromhex(key) for key in document["public_keys"]]
        images = {digest: (path.parent / name).read_bytes() for digest, name in document["images"].items()}
        nodes = [_node(item) for item in document["nodes"]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise SpecInvalid(f"{path}: {type(error).__name__}: {error}") from error
    for digest, image in images.items():
        if hashlib.sha256(image).hexdigest() != digest:
            raise SpecInvalid(f"{path}: images: {digest} is not the SHA-256 of its file")
    for node in nodes:
        if node.active not in images:
            raise SpecInvalid(f"{path}: node {node.endpoint}: active {node.active!r} is not among images")
    if len({node.endpoint for node in nodes}) != len(nodes):
        raise SpecInvalid(f"{path}: nodes: an endpoint is there twice")
    return Spec(keys, images, nodes)


def _node(item: dict[str, Any]) -> NodeSpec:
    unknown = set(item) - {field.name for field in fields(NodeSpec)}
    if unknown:
        raise SpecInvalid(f"node {item.get('endpoint')}: unknown fields {sorted(unknown)}")
    node = NodeSpec(**item)
    if node.behaviour not in BEHAVIOURS:
        raise SpecInvalid(f"node {node.endpoint}: behaviour {node.behaviour!r}, must be one of {', '.join(BEHAVIOURS)}")
    if node.link != "nbiot":
        raise SpecInvalid(f"node {node.endpoint}: link {node.link!r}, this simulator speaks nbiot")
    if node.patch_decoder not in CODECS:
        raise SpecInvalid(
            f"node {node.endpoint}: patch_decoder {node.patch_decoder!r}, must be one of {', '.join(CODECS)}"
        )
    if node.lwm2m not in ("1.0", "1.1"):
        raise SpecInvalid(f"node {node.endpoint}: lwm2m {node.lwm2m!r}, must be 1.0 or 1.1")
    if node.block_bytes not in (16, 32, 64, 128, 256, 512, 1024):
        raise SpecInvalid(f"node {node.endpoint}: block_bytes {node.block_bytes}, must be a power of two 16..1024")
    if node.wake_interval_s <= 0 or node.awake_s <= 0 or node.lifetime_s <= 0 or node.ack_timeout_s <= 0:
        raise SpecInvalid(f"node {node.endpoint}: wake_interval_s, awake_s, lifetime_s, ack_timeout_s must be above 0")
    _ = node.radio, bytes.fromhex(node.class_hash)  # both raise for a bad value
    return node
