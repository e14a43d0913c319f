"""`python -m devices.simulator --spec FILE --gateway HOST:PORT --state DIR`: simulated NB-IoT nodes until SIGTERM."""

from __future__ import annotations

import argparse
import asyncio
import resource
import signal
import socket
import sys
from pathlib import Path

from devices.simulator.flash import FlashMismatch
from devices.simulator.fleet import Fleet
from devices.simulator.network import Address
from devices.simulator.spec import Spec, SpecInvalid, read_spec


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m devices.simulator", description=__doc__)
    parser.add_argument("--spec", type=Path, required=True, help="JSON file: public_keys, images, nodes")
    parser.add_argument("--gateway", type=_address, required=True, help="HOST:PORT of the LwM2M gateway")
    parser.add_argument("--time-scale", type=float, default=1.0, help="simulated seconds in one second (default 1)")
    parser.add_argument("--seed", type=int, default=1, help="of all chance; each node has its own stream (default 1)")
    parser.add_argument("--state", type=Path, required=True, help="directory of flash contents and status.json")
    arguments = parser.parse_args()
    # Two descriptors a node: its socket and its mapped flash.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    try:
        spec = read_spec(arguments.spec)
        asyncio.run(_run(spec, arguments))
    except (SpecInvalid, FlashMismatch, ValueError) as error:
        print(f"simulator: {error}", file=sys.stderr)
        return 2
    return 0


async def _run(spec: Spec, arguments: argparse.Namespace) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    fleet = Fleet(
        spec,
        server=arguments.gateway,
        time_scale=arguments.time_scale,
        seed=arguments.seed,
        directory=arguments.state,
    )
    print(f"simulator: {len(fleet.nodes)} nodes, {arguments.time_scale:g} simulated seconds a second", flush=True)
    await fleet.run(stop)


def _address(text: str) -> Address:
    host, _, port = text.rpartition(":")
    try:
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_DGRAM)
    except (OSError, ValueError) as error:
        raise argparse.ArgumentTypeError(f"{text!r}: must be HOST:PORT ({error})") from error
    return str(found[0][4][0]), int(port)


if __name__ == "__main__":
    sys.exit(main())
