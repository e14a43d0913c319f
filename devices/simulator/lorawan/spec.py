"""What to simulate on LoRaWAN: the specification file, and what stands in ChirpStack when the simulation begins."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast, get_args

from devices.simulator.chirpstack.gateway import GatewaySpec
from devices.simulator.chirpstack.network_server import Windows
from devices.simulator.chirpstack.publisher import Faults
from devices.simulator.lorawan.fragments import Dialect, Limits
from devices.simulator.spec import FirmwareSpec, SpecInvalid, check_nodes, read_common, refuse_unknown


@dataclass(frozen=True)
class LorawanNodeSpec(FirmwareSpec):
    """A LoRaWAN node of class A. `dev_eui`: 8 bytes in hex, made from the endpoint where it is empty.

    `loss` is per frame and link, each way. `gateways`: ids of those in reach, empty: all. `tags`: of the device in
    ChirpStack. `data_rates`: changes that come later, as [simulated second, data rate] pairs in rising order.
    """

    link: str = "lorawan"
    dev_eui: str = ""
    data_rate: int = 3
    data_rates: tuple[tuple[float, int], ...] = ()
    adr: bool = False
    gateways: tuple[str, ...] = ()
    application: str = "Modelfleet"
    tags: dict[str, str] = field(default_factory=dict)
    forward_error_correction: Dialect = "ts004-v1"
    fragments_max: int = 2048
    fragment_bytes_max: int = 242
    losses_max: int = 512
    missing_are_losses: bool = False

    @property
    def eui(self) -> str:
        return self.dev_eui.lower() or hashlib.sha256(f"eui/{self.endpoint}".encode()).hexdigest()[:16]

    @property
    def root_key(self) -> str:
        """16 bytes in hex; a simulated secret, the same in each run."""
        return hashlib.sha256(f"key/{self.endpoint}".encode()).hexdigest()[:32]

    @property
    def limits(self) -> Limits:
        return Limits(self.fragments_max, self.fragment_bytes_max, self.losses_max)


@dataclass(frozen=True)
class LorawanSpec:
    """`tenant`: name of the tenant that all objects belong to."""

    public_keys: list[bytes] = field(default_factory=list)
    images: dict[str, bytes] = field(default_factory=dict)
    nodes: list[LorawanNodeSpec] = field(default_factory=list)
    gateways: list[GatewaySpec] = field(default_factory=list)
    windows: Windows = field(default_factory=Windows)
    faults: Faults = field(default_factory=Faults)
    tenant: str = "Modelfleet"


def read_lorawan_spec(path: Path) -> LorawanSpec:
    """The nodes with link lorawan of a specification file, and the network around them. Raises SpecInvalid."""
    document, keys, images = read_common(path)
    try:
        nodes = [_node(item) for item in document["nodes"] if item.get("link", "nbiot") != "nbiot"]
        gateways = [_gateway(item) for item in document.get("gateways", [])]
        windows = Windows(document.get("rx1_dr_offset", 0), document.get("rx2_data_rate", 0))
        faults = Faults(document.get("events_doubled", 0.0), document.get("events_reordered", 0.0))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SpecInvalid(f"{path}: {type(error).__name__}: {error}") from error
    check_nodes(path, nodes, images)
    spec = LorawanSpec(keys, images, nodes, gateways, windows, faults, document.get("tenant", "Modelfleet"))
    check_network(spec)
    return spec


def check_network(spec: LorawanSpec) -> None:
    """Raises SpecInvalid where nodes and gateways do not fit together."""
    known = {gateway.gateway_id.lower() for gateway in spec.gateways}
    if spec.nodes and not known:
        raise SpecInvalid("gateways: none, LoRaWAN nodes need at least one")
    if len(known) != len(spec.gateways):
        raise SpecInvalid("gateways: an id is there twice")
    if len({node.eui for node in spec.nodes}) != len(spec.nodes):
        raise SpecInvalid("nodes: a dev_eui is there twice")
    for node in spec.nodes:
        strangers = {gateway.lower() for gateway in node.gateways} - known
        if strangers:
            raise SpecInvalid(f"node {node.endpoint}: gateways {sorted(strangers)} are not among gateways")


def _gateway(item: dict[str, Any]) -> GatewaySpec:
    refuse_unknown(item, GatewaySpec)
    return GatewaySpec(**item)


def _node(item: dict[str, Any]) -> LorawanNodeSpec:
    refuse_unknown(item, LorawanNodeSpec)
    given = {**item, "gateways": tuple(item.get("gateways", ()))}
    given["data_rates"] = tuple((float(when), int(rate)) for when, rate in item.get("data_rates", ()))
    node = LorawanNodeSpec(**given)
    if node.link != "lorawan":
        raise SpecInvalid(f"node {node.endpoint}: link {node.link!r}, must be lorawan or nbiot")
    rates = (node.data_rate, *(rate for _, rate in node.data_rates))
    if any(rate not in range(6) for rate in rates):
        raise SpecInvalid(f"node {node.endpoint}: data rates {rates}, must be 0..5")
    if node.forward_error_correction not in get_args(Dialect):
        raise SpecInvalid(
            f"node {node.endpoint}: forward_error_correction {node.forward_error_correction!r}, "
            f"must be one of {', '.join(cast('tuple[str, ...]', get_args(Dialect)))}"
        )
    if len(bytes.fromhex(node.eui)) != 8:
        raise SpecInvalid(f"node {node.endpoint}: dev_eui {node.dev_eui!r}, must be 8 bytes in hex")
    if not 0 <= node.loss < 1:
        raise SpecInvalid(f"node {node.endpoint}: loss {node.loss}, must be 0 or more and below 1")
    _ = bytes.fromhex(node.class_hash)  # raises for a bad value
    return node
