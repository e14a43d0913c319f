"""Binds the gateway to its UDP port."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import structlog
from aiocoap import Context

from devices.links.nbiot.gateway import Gateway
from devices.links.nbiot.resources import make_site

log = structlog.get_logger(__name__)

# 512 bytes: 1.29 times the body on the air, where 256 cost 1.58 and 1024 does not fit every node's buffer.
SIZE_EXPONENT = 5


def _survive(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """A datagram that trips aiocoap's decoder ends as one line here, and the next datagram is read."""
    log.warning("lwm2m.loop-error", message=context.get("message"), error=repr(context.get("exception")))


@asynccontextmanager
async def serve(
    *,
    host: str,
    port: int,
    public: str = "",
    time_scale: float = 1.0,
    awake_s: float | None = None,
    size_exponent_max: int = SIZE_EXPONENT,
) -> AsyncIterator[Gateway]:
    """A running gateway on `host` (an address) and `port`. Raises OSError where the port is taken.

    `public` is the host:port that nodes pull from, the bound one if empty; `time_scale` simulated seconds a second.
    """
    # By default aiocoap lets two processes share a port, and each would get a part of the datagrams of every node.
    os.environ["AIOCOAP_REUSE_PORT"] = "0"
    asyncio.get_running_loop().set_exception_handler(_survive)
    logging.getLogger("coap-server").setLevel(logging.WARNING)  # a line for each retransmission otherwise
    shown = f"[{host}]" if ":" in host else host
    gateway = Gateway(public=public or f"{shown}:{port}", time_scale=time_scale, awake_s=awake_s)
    try:
        context = await Context.create_server_context(
            make_site(gateway, size_exponent_max=size_exponent_max), bind=(host, port), transports=["udp6"]
        )
    except BaseException:
        await gateway.close()
        raise
    gateway.start(context)
    try:
        yield gateway
    finally:
        await context.shutdown()  # first: what still comes in would find nobody to write it down
        await gateway.close()
