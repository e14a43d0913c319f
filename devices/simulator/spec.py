"""What to simulate: the specification file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from devices.simulator.network import Radio
from devices.simulator.package import CODECS

BEHAVIOURS = ("normal", "wrong-base", "failing-self-test", "reboot", "liar", "silent", "never", "lost-previous")


class SpecInvalid(ValueError):
    """The specification cannot be simulated; the message names the field and the fix."""


@dataclass(frozen=True)
class FirmwareSpec:
    """What a node is, whatever radio it has. `active`: SHA-256 of the image that it leaves the factory with, in hex.

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
    firmware_build: str = "simulated-1"
    loss: float = 0.0
    health_every_wakes: int = 4
    patch_decoder: str = "l"  # what its firmware is built with: none, s or l


@dataclass(frozen=True)
class NodeSpec(FirmwareSpec):
    """An NB-IoT node."""

    awake_s: float = 93.0  # stays awake so long after the last datagram; what a gateway assumes too
    lifetime_s: int = 86400
    link: str = "nbiot"
    lwm2m: str = "1.1"  # a 1.0 client has no Send: the server reads its reports
    latency_s: float = 0.5
    jitter_s: float = 0.1
    nat_idle_s: float = 60.0
    ack_timeout_s: float = 4.0
    block_bytes: int = 512
    deduplicate: bool = True

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
    """The NB-IoT nodes of a specification file; those with link lorawan are another simulator's. Raises SpecInvalid."""
    document, keys, images = read_common(path)
    try:
        nodes = [_node(item) for item in document["nodes"] if item.get("link") != "lorawan"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SpecInvalid(f"{path}: {type(error).__name__}: {error}") from error
    check_nodes(path, nodes, images)
    return Spec(keys, images, nodes)


def read_common(path: Path) -> tuple[dict[str, Any], list[bytes], dict[str, bytes]]:
    """The whole document, public keys, images by digest. Raises SpecInvalid."""
    try:
        document = json.loads(path.read_text())
        keys = [bytes.fromhex(key) for key in document["public_keys"]]
        images = {digest: (path.parent / name).read_bytes() for digest, name in document["images"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise SpecInvalid(f"{path}: {type(error).__name__}: {error}") from error
    for digest, image in images.items():
        if hashlib.sha256(image).hexdigest() != digest:
            raise SpecInvalid(f"{path}: images: {digest} is not the SHA-256 of its file")
    return document, keys, images


def check_nodes(path: Path, nodes: Sequence[FirmwareSpec], images: dict[str, bytes]) -> None:
    """Raises SpecInvalid."""
    for node in nodes:
        if node.behaviour not in BEHAVIOURS:
            raise SpecInvalid(
                f"node {node.endpoint}: behaviour {node.behaviour!r}, must be one of {', '.join(BEHAVIOURS)}"
            )
        if node.patch_decoder not in CODECS:
            raise SpecInvalid(
                f"node {node.endpoint}: patch_decoder {node.patch_decoder!r}, must be one of {', '.join(CODECS)}"
            )
        if node.active not in images:
            raise SpecInvalid(f"{path}: node {node.endpoint}: active {node.active!r} is not among images")
        if node.wake_interval_s <= 0:
            raise SpecInvalid(f"node {node.endpoint}: wake_interval_s {node.wake_interval_s}, must be above 0")
    if len({node.endpoint for node in nodes}) != len(nodes):
        raise SpecInvalid(f"{path}: nodes: an endpoint is there twice")


def refuse_unknown(item: dict[str, Any], kind: type[Any]) -> None:
    """Raises SpecInvalid where `item` has keys that the dataclass `kind` has not."""
    unknown = set(item) - {field.name for field in fields(kind)}
    if unknown:
        raise SpecInvalid(f"{kind.__name__} {item.get('endpoint', '')}: unknown fields {sorted(unknown)}")


def _node(item: dict[str, Any]) -> NodeSpec:
    refuse_unknown(item, NodeSpec)
    node = NodeSpec(**item)
    if node.link != "nbiot":
        raise SpecInvalid(f"node {node.endpoint}: link {node.link!r}, must be nbiot or lorawan")
    if node.lwm2m not in ("1.0", "1.1"):
        raise SpecInvalid(f"node {node.endpoint}: lwm2m {node.lwm2m!r}, must be 1.0 or 1.1")
    if node.block_bytes not in (16, 32, 64, 128, 256, 512, 1024):
        raise SpecInvalid(f"node {node.endpoint}: block_bytes {node.block_bytes}, must be a power of two 16..1024")
    if node.awake_s <= 0 or node.lifetime_s <= 0 or node.ack_timeout_s <= 0:
        raise SpecInvalid(f"node {node.endpoint}: awake_s, lifetime_s, ack_timeout_s must be above 0")
    _ = node.radio, bytes.fromhex(node.class_hash)  # both raise for a bad value
    return node
