from __future__ import annotations

import asyncio
import signal
from argparse import ArgumentParser
from ipaddress import ip_address
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from devices.links.nbiot.server import serve
from fleet.operations.gateway import beating


class Command(BaseCommand):
    help = "Speaks LwM2M over CoAP with NB-IoT nodes."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--bind", default=settings.LWM2M_BIND, help="address to listen on (LWM2M_BIND)")
        parser.add_argument("--port", type=int, default=settings.LWM2M_PORT, help="UDP port (LWM2M_PORT)")
        parser.add_argument(
            "--public", default=settings.LWM2M_PUBLIC, help="host:port that nodes are told to pull from (LWM2M_PUBLIC)"
        )
        parser.add_argument(
            "--allow-insecure",
            action="store_true",
            help="listen beyond loopback although nothing is encrypted and nobody proves who they are",
        )

    def handle(self, *, bind: str, port: int, public: str, allow_insecure: bool, **options: Any) -> None:
        try:
            loopback = ip_address(bind).is_loopback
        except ValueError as error:
            raise CommandError(f"--bind: {bind!r} is not an IP address; use 127.0.0.1, say") from error
        if not loopback and not allow_insecure:
            raise CommandError(
                f"--bind: {bind} is not loopback, and this gateway has no DTLS yet: any host could pass for any node. "
                "Bind 127.0.0.1, or add --allow-insecure on a network that you trust."
            )
        self.stderr.write(
            self.style.WARNING(
                f"WARNING: LwM2M on {bind}:{port} runs without security (NoSec): nothing is encrypted, "
                "and nodes are known by their name alone."
            )
        )
        asyncio.run(self._run(bind, port, public))

    async def _run(self, bind: str, port: int, public: str) -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        gateway_running = serve(host=bind, port=port, public=public, time_scale=settings.TIME_SCALE)
        async with gateway_running as gateway, beating(serves="nbiot"):
            ends = [asyncio.ensure_future(event.wait()) for event in (stop, gateway.broken)]
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            for end in ends:
                end.cancel()
        if gateway.broken.is_set():
            raise CommandError("the CoAP library lost track of its exchanges; whoever supervises must start me again")
