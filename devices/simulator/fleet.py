"""All nodes of a specification in one process, and the status file that others read."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from pathlib import Path
from typing import Any

from devices.simulator.clock import Clock
from devices.simulator.network import Address
from devices.simulator.node import Node
from devices.simulator.package import replace
from devices.simulator.self_test import SelfTestBench
from devices.simulator.spec import Spec

_STATUS_WALL_S = 1.0
_SUMMED = ("bytes_up", "bytes_down", "messages_up", "messages_down", "lost", "black_holed", "rebindings", "reboots")


class Fleet:
    """Must be made inside of a running event loop. `server`: (IP address, port) of the gateway."""

    def __init__(self, spec: Spec, *, server: Address, time_scale: float, seed: int, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory, self._time_scale = directory, time_scale
        self._clock = Clock(time_scale)
        bench = SelfTestBench()
        self.nodes = {
            node.endpoint: Node(
                node, spec, clock=self._clock, server=server, seed=seed, directory=directory, bench=bench
            )
            for node in spec.nodes
        }

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop`. A node whose task fails ends the run with its exception: that is a defect of the simulator."""
        tasks = [asyncio.create_task(node.run(), name=name) for name, node in self.nodes.items()]
        stopping = asyncio.ensure_future(stop.wait())
        try:
            while not stop.is_set():
                self.write_status()
                await asyncio.wait((stopping,), timeout=_STATUS_WALL_S)
                for task in tasks:
                    if task.done():
                        task.result()
        finally:
            stopping.cancel()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for node in self.nodes.values():
                node.path.close()
            self.write_status()

    def status(self) -> dict[str, Any]:
        nodes = {name: node.status() for name, node in self.nodes.items()}
        totals: dict[str, Any] = {key: sum(node[key] for node in nodes.values()) for key in _SUMMED}
        totals["nodes"] = len(nodes)
        totals["registered"] = sum(node["registered"] for node in nodes.values())
        totals["states"] = dict(Counter(node["state"] for node in nodes.values()))
        return {
            "time_scale": self._time_scale,
            "simulated_s": round(self._clock.now(), 1),
            "totals": totals,
            "nodes": nodes,
        }

    def write_status(self) -> None:
        replace(self._directory / "status.json", json.dumps(self.status()).encode())
