"""The network server, its gateways and all LoRaWAN nodes of a specification in one process, and the status file."""

from __future__ import annotations

import asyncio
import json
import random
import uuid
from collections import Counter
from pathlib import Path
from typing import Any

from chirpstack_api import api, common

from devices.simulator.chirpstack.air import Link
from devices.simulator.chirpstack.stand_in import ChirpStack
from devices.simulator.lorawan.node import LorawanNode
from devices.simulator.lorawan.spec import LorawanNodeSpec, LorawanSpec
from devices.simulator.package import replace
from devices.simulator.self_test import SelfTestBench

_STATUS_WALL_S = 1.0
_SUMMED = ("bytes_up", "bytes_down", "messages_up", "messages_down", "unanswered", "joins", "reboots")
_NAMESPACE = uuid.UUID(
    "9d7c1e62-6a0e-4d39-9a53-3f1c5b0f6f55"
)  # ids of what the simulator registers, the same in each run


class LorawanFleet:
    """Must be made inside of a running event loop."""

    def __init__(self, spec: LorawanSpec, *, time_scale: float, seed: int, directory: Path) -> None:
        self._directory, self._time_scale = directory, time_scale
        self.chirpstack = ChirpStack(
            gateways=spec.gateways,
            windows=spec.windows,
            faults=spec.faults,
            time_scale=time_scale,
            seed=seed,
            directory=directory,
        )
        self._register(spec)
        bench = SelfTestBench()
        self.nodes = {
            node.endpoint: LorawanNode(
                node,
                spec,
                air=self.chirpstack.air,
                timeline=self.chirpstack.timeline,
                seed=seed,
                directory=directory,
                bench=bench,
                links=_links(node, spec, seed),
            )
            for node in spec.nodes
        }

    async def start(self, address: str) -> None:
        """Listen on HOST:PORT and let the nodes live. Raises OSError where the address is taken."""
        await self.listen(address)
        self.start_nodes()

    async def listen(self, address: str) -> None:
        """A network server whose nodes are not powered yet. Raises OSError where the address is taken."""
        await self.chirpstack.start(address)

    def start_nodes(self) -> None:
        for node in self.nodes.values():
            node.start()

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop`, with a status file once a second; then everything ends.

        A node or gateway that fails ends the run with its exception: that is a defect of the simulator.
        """
        stopping = asyncio.ensure_future(stop.wait())
        try:
            while not stop.is_set():
                self.write_status()
                self.chirpstack.store.save()
                await asyncio.wait((stopping,), timeout=_STATUS_WALL_S)
                if self.chirpstack.timeline.failure is not None:
                    raise self.chirpstack.timeline.failure
        finally:
            stopping.cancel()
            for node in self.nodes.values():
                node.stop()
            await self.chirpstack.stop()
            self.write_status()

    def status(self) -> dict[str, Any]:
        """All traffic counts since this start of the process."""
        nodes = {name: node.status() for name, node in self.nodes.items()}
        gateways = {
            gateway_id: {"name": gateway.spec.name, **vars(gateway.traffic)}
            for gateway_id, gateway in self.chirpstack.gateways.items()
        }
        totals: dict[str, Any] = {key: sum(node[key] for node in nodes.values()) for key in _SUMMED}
        counted = ("frames_up", "frames_down", "deafened", "collided", "lost", "too_late", "collision_refusals")
        for key in (*counted, "duty_cycle_refusals"):
            totals[key] = sum(gateway[key] for gateway in gateways.values())
        totals["airtime_down_s"] = round(sum(sum(at["airtime_s"].values()) for at in gateways.values()), 3)
        totals["airtime_up_s"] = round(sum(node["airtime_up_s"] for node in nodes.values()), 3)
        totals["nodes"] = len(nodes)
        totals["registered"] = sum(node["registered"] for node in nodes.values())
        totals["states"] = dict(Counter(node["state"] for node in nodes.values()))
        totals["events_posted"] = self.chirpstack.publisher.posted
        totals["events_failed"] = self.chirpstack.publisher.failed
        return {
            "time_scale": self._time_scale,
            "simulated_s": round(self.chirpstack.clock.now(), 1),
            "totals": totals,
            "gateways": gateways,
            "nodes": nodes,
        }

    def write_status(self) -> None:
        replace(self._directory / "status.json", json.dumps(self.status()).encode())

    def _register(self, spec: LorawanSpec) -> None:
        """What an operator of ChirpStack has entered before: tenant, profile, gateways, applications, devices, keys."""
        store = self.chirpstack.store
        tenant_id, profile_id = _id("tenant", spec.tenant), _id("profile", spec.tenant)
        if tenant_id not in store.tenants.rows:
            store.tenants.add(tenant_id, api.Tenant(id=tenant_id, name=spec.tenant, can_have_gateways=True))
        if profile_id not in store.device_profiles.rows:
            profile = api.DeviceProfile(
                id=profile_id,
                tenant_id=tenant_id,
                name="Class A, EU868",
                region=common.EU868,
                mac_version=common.LORAWAN_1_0_4,
                reg_params_revision=common.RP002_1_0_3,
                adr_algorithm_id="default",
                supports_otaa=True,
                flush_queue_on_activate=True,
                uplink_interval=int(max((node.wake_interval_s for node in spec.nodes), default=3600)),
            )
            store.device_profiles.add(profile_id, profile)
        for gateway in spec.gateways:
            key = gateway.gateway_id.lower()
            if key not in store.gateways.rows:
                entry = api.Gateway(gateway_id=key, name=gateway.name or key, tenant_id=tenant_id, stats_interval=30)
                store.gateways.add(key, entry)
        for name in sorted({node.application for node in spec.nodes}):
            key = _id("application", f"{spec.tenant}/{name}")
            if key not in store.applications.rows:
                store.applications.add(key, api.Application(id=key, tenant_id=tenant_id, name=name))
        for node in spec.nodes:
            if node.eui not in store.devices.rows:
                device = api.Device(
                    dev_eui=node.eui,
                    name=node.endpoint,
                    application_id=_id("application", f"{spec.tenant}/{node.application}"),
                    device_profile_id=profile_id,
                    join_eui="00" * 8,
                    tags=node.tags,
                )
                store.devices.add(node.eui, device)
                keys = api.DeviceKeys(dev_eui=node.eui, nwk_key=node.root_key, app_key="00" * 16, gen_app_key="00" * 16)
                store.device_keys.add(node.eui, keys)
        store.save()


def _id(kind: str, name: str) -> str:
    return str(uuid.uuid5(_NAMESPACE, f"{kind}/{name}"))


def _links(node: LorawanNodeSpec, spec: LorawanSpec, seed: int) -> dict[str, Link]:
    """Losses of node and gateway are independent of each other."""
    rng = random.Random(f"{seed}/{node.endpoint}/links")
    wanted = {gateway.lower() for gateway in node.gateways}
    links = {}
    for gateway in spec.gateways:
        key = gateway.gateway_id.lower()
        if not wanted or key in wanted:
            loss = 1 - (1 - node.loss) * (1 - gateway.loss)
            links[key] = Link(loss, loss, rng.uniform(3, 15))
    return links
