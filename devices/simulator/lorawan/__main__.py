"""`python -m devices.simulator.lorawan --grpc HOST:PORT --state DIR [--spec FILE]`: ChirpStack, gateways and LoRaWAN
nodes until SIGTERM. Without a specification it is a ChirpStack without nodes."""

from __future__ import annotations

import argparse
import asyncio
import logging
import resource
import signal
import sys
from pathlib import Path

from devices.simulator.flash import FlashMismatch
from devices.simulator.lorawan.fleet import LorawanFleet
from devices.simulator.lorawan.spec import LorawanSpec, read_lorawan_spec
from devices.simulator.spec import SpecInvalid


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m devices.simulator.lorawan", description=__doc__)
    parser.add_argument("--spec", type=Path, help="JSON file: public_keys, images, gateways, nodes with link lorawan")
    parser.add_argument("--grpc", required=True, help="HOST:PORT to listen on; port 0 takes a free one")
    parser.add_argument("--state", type=Path, required=True, help="directory of token, objects, flash and status.json")
    parser.add_argument("--time-scale", type=float, default=1.0, help="simulated seconds in one second (default 1)")
    parser.add_argument("--seed", type=int, default=1, help="of all chance; each node has its own stream (default 1)")
    arguments = parser.parse_args()
    logging.basicConfig(format="simulator: %(message)s")
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)  # a node's flash is a mapped file
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    try:
        spec = LorawanSpec() if arguments.spec is None else read_lorawan_spec(arguments.spec)
        asyncio.run(_run(spec, arguments))
    except (SpecInvalid, FlashMismatch, ValueError, OSError) as error:
        print(f"simulator: {error}", file=sys.stderr)
        return 2
    return 0


async def _run(spec: LorawanSpec, arguments: argparse.Namespace) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    fleet = LorawanFleet(spec, time_scale=arguments.time_scale, seed=arguments.seed, directory=arguments.state)
    await fleet.start(arguments.grpc)
    host = arguments.grpc.rpartition(":")[0]
    print(f"simulator: ChirpStack on {host}:{fleet.chirpstack.port}, token in {arguments.state / 'token'}", flush=True)
    print(f"simulator: {len(fleet.nodes)} nodes, {arguments.time_scale:g} simulated seconds a second", flush=True)
    await fleet.run(stop)


if __name__ == "__main__":
    sys.exit(main())
