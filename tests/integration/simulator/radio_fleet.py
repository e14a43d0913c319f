"""LoRaWAN nodes and the application that updates them, for tests."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from devices.simulator.chirpstack.gateway import GatewaySpec
from devices.simulator.chirpstack.network_server import Windows
from devices.simulator.chirpstack.publisher import Faults
from devices.simulator.lorawan.background import BackgroundChirpStack
from devices.simulator.lorawan.fleet import LorawanFleet
from devices.simulator.lorawan.node import LorawanNode
from devices.simulator.lorawan.spec import LorawanNodeSpec, LorawanSpec
from tests.integration.devices.simulated import CLASS, OLD, OLD_DIGEST, SIGNER, TARGET, TARGET_DIGEST
from tests.integration.simulator.application import Application, Receiver

GATEWAY = "0016c001f153a14c"
TIME_SCALE = 600.0


def node_spec(endpoint: str = "node-1", **fields: Any) -> LorawanNodeSpec:
    """A node in good reception that wakes each simulated minute: ten times a second of the tests."""
    values: dict[str, Any] = {
        "class_hash": CLASS.hex(),
        "slot_bytes": 4096,
        "active": OLD_DIGEST,
        "wake_interval_s": 60.0,
        "data_rate": 5,
        "health_every_wakes": 1000,
    }
    return LorawanNodeSpec(endpoint=endpoint, **{**values, **fields})


class Scene:
    """One node's ChirpStack, the application that has joined it, and what came up."""

    def __init__(self, stand_in: BackgroundChirpStack, application: Application, receiver: Receiver) -> None:
        self.stand_in, self.application, self.receiver = stand_in, application, receiver
        self.dev_eui = stand_in.call(lambda fleet: next(iter(fleet.nodes.values())).spec.eui)

    @property
    def node(self) -> LorawanNode:
        """Only to be looked at."""
        return next(iter(self.stand_in.fleet.nodes.values()))

    def status(self) -> dict[str, Any]:
        return next(iter(self.stand_in.status()["nodes"].values()))

    def uplinks(self, port: int) -> list[bytes]:
        """Payloads in the order they came; events that came twice count once."""
        seen: dict[str, bytes] = {}
        for event in self.receiver.named("up"):
            if event.f_port == port:
                seen.setdefault(event.deduplication_id, event.data)
        return list(seen.values())

    def states(self) -> list[int]:
        """The state of each state report."""
        return [data[0] & 15 for data in self.uplinks(26) if data[0] >> 4 == 1]

    def digests(self) -> list[bytes]:
        return [data[2:] for data in self.uplinks(26) if data[0] >> 4 == 3]

    def fleet_call(self, what: Any) -> Any:
        return self.stand_in.call(what)


@contextlib.contextmanager
def scene(
    directory: Path,
    *nodes: LorawanNodeSpec,
    gateways: tuple[GatewaySpec, ...] = (GatewaySpec(GATEWAY, duty_cycle=False),),
    windows: Windows | None = None,
    faults: Faults | None = None,
    encoding: int = 0,
    time_scale: float = TIME_SCALE,
    seed: int = 1,
) -> Iterator[Scene]:
    spec = LorawanSpec(
        [SIGNER.public_key],
        {OLD_DIGEST: OLD, TARGET_DIGEST: TARGET},
        list(nodes or (node_spec(),)),
        list(gateways),
        windows or Windows(),
        faults or Faults(),
    )
    receiver = Receiver()
    try:
        with BackgroundChirpStack(directory, spec, time_scale=time_scale, seed=seed, nodes_wait=True) as stand_in:
            application = Application(stand_in.address, stand_in.token)
            try:
                for key in stand_in.call(_applications):
                    application.integrate(key, receiver.url, encoding)
                stand_in.call(LorawanFleet.start_nodes)
                yield Scene(stand_in, application, receiver)
            finally:
                application.close()
    finally:
        receiver.close()


def _applications(fleet: LorawanFleet) -> list[str]:
    return list(fleet.chirpstack.store.applications.rows)
