"""A scripted LwM2M client over real UDP for tests of the gateway; it knows the wire contract only."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import cbor2
from aiocoap import BAD_REQUEST, CHANGED, CONTENT, DELETE, FORBIDDEN, GET, NOT_FOUND, POST, Context, Message
from aiocoap.resource import PathCapable, Resource, Site
from django.db import connection

from devices.links.nbiot.gateway import Gateway
from devices.links.nbiot.server import serve
from devices.models import HardwareProfile, LinkKind, Node

Result = TypeVar("Result")
CONFIRMED, REVERTED, TRIAL = 4, 5, 3
COMMANDED = 11


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def in_database(query: Callable[[], Result]) -> Result:
    def run() -> Result:
        try:
            return query()
        finally:
            connection.close()

    return await asyncio.to_thread(run)


async def eventually(condition: Callable[[], Any], *, within_s: float = 8.0) -> Any:
    """The first true value of `condition`, which may query the database. Raises AssertionError."""
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        if value := await in_database(condition):
            return value
        await asyncio.sleep(0.02)
    raise AssertionError("did not become true in time")


def make_node(endpoint: str = "node-1", **fields: Any) -> Node:
    profile, _ = HardwareProfile.objects.get_or_create(
        name="board", defaults={"slot_bytes": 65536, "sram_bytes": 262144, "reserved_sram_bytes": 65536}
    )
    return Node.objects.create(endpoint=endpoint, link=LinkKind.NBIOT, profile=profile, **fields)


def state_report(state: int, *, active: bytes, cause: int = 0, sequence_low: int = 0) -> bytes:
    return bytes([0x10 | state, cause]) + active[:4] + bytes(4) + bytes([sequence_low])


class Objects(Resource, PathCapable):
    """The node's side: /5 and, if it has an agent, /26241."""

    def __init__(self, *, base: bytes, agent: bool) -> None:
        super().__init__()
        self.base, self.agent = base, agent
        self.uris: list[str] = []
        self.commands: list[bytes] = []
        self.executed = 0
        self.state, self.result = 0, 0
        self.report = state_report(0, active=base)
        self.refuse_commands = False
        self.requests: list[str] = []

    async def render_get(self, request: Message) -> Message:
        path = "/".join(request.opt.uri_path)
        self.requests.append(f"GET {path}")
        values: dict[str, tuple[int, bytes]] = {
            "5/0/3": (0, str(self.state).encode()),
            "5/0/5": (0, str(self.result).encode()),
            "5/0/7": (0, self.base.hex().encode()),
        }
        if self.agent:
            values |= {"26241/0/0": (42, self.base), "26241/0/2": (42, self.report)}
        if path not in values:
            return Message(code=NOT_FOUND)
        return Message(code=CONTENT, content_format=values[path][0], payload=values[path][1])

    async def render_put(self, request: Message) -> Message:
        path = "/".join(request.opt.uri_path)
        self.requests.append(f"PUT {path}")
        if path == "5/0/1":
            self.uris.append(request.payload.decode())
            return Message(code=CHANGED)
        if path == "26241/0/3" and self.agent:
            self.commands.append(request.payload)
            return Message(code=FORBIDDEN if self.refuse_commands else CHANGED)
        return Message(code=NOT_FOUND)

    async def render_post(self, request: Message) -> Message:
        path = "/".join(request.opt.uri_path)
        self.requests.append(f"POST {path}")
        if path != "5/0/2" or self.state != 2:
            return Message(code=BAD_REQUEST)
        self.executed, self.state = self.executed + 1, 3
        return Message(code=CHANGED)


class ScriptedNode:
    def __init__(self, context: Context, objects: Objects, port: int) -> None:
        self.context, self.objects = context, objects
        self.server = f"coap://127.0.0.1:{port}"
        self.location = ""

    async def ask(self, message: Message, path: str, query: str = "") -> Message:
        message.set_request_uri(f"{self.server}/{path}{query}")
        return await asyncio.wait_for(self.context.request(message, handle_blockwise=False).response, 8)

    async def register(self, query: str = "lwm2m=1.1&Q", endpoint: str = "node-1") -> Message:
        links = b'</>;rt="oma.lwm2m",</1/0>,</3/0>,</5/0>' + (b",</26241/0>" if self.objects.agent else b"")
        answer = await self.ask(
            Message(code=POST, payload=links, content_format=40), "rd", f"?ep={endpoint}&lt=300&{query}"
        )
        self.location = "/".join(answer.opt.location_path)
        return answer

    async def update(self) -> Message:
        return await self.ask(Message(code=POST), self.location)

    async def deregister(self) -> Message:
        return await self.ask(Message(code=DELETE), self.location)

    async def send(self, report: bytes, name: str = "/26241/0/2") -> Message:
        return await self.send_raw(cbor2.dumps([{-2: name, 8: report}]))

    async def send_raw(self, pack: bytes) -> Message:
        return await self.ask(Message(code=POST, payload=pack, content_format=112), "dp")

    async def pull(self, uri: str, *, number: int = 0, size_exponent: int = 5) -> Message:
        path = uri.split("/", 3)[3]
        return await self.ask(Message(code=GET, block2=(number, False, size_exponent)), path)

    async def pull_whole(self, uri: str) -> bytes:
        body, number = b"", 0
        while True:
            answer = await self.pull(uri, number=number)
            assert answer.code == CONTENT
            body += answer.payload
            if not answer.opt.block2.more:
                return body
            number += 1


@asynccontextmanager
async def node_at(port: int, *, base: bytes = bytes(32), agent: bool = True) -> AsyncIterator[ScriptedNode]:
    objects, site = Objects(base=base, agent=agent), Site()
    site.add_resource(["5"], _Below(objects, "5"))
    site.add_resource(["26241"], _Below(objects, "26241"))
    context = await Context.create_server_context(site, bind=("127.0.0.1", free_port()), transports=["udp6"])
    try:
        yield ScriptedNode(context, objects, port)
    finally:
        await context.shutdown()


class _Below(Resource, PathCapable):
    """Gives a site's child its whole path back."""

    def __init__(self, objects: Objects, root: str) -> None:
        super().__init__()
        self._objects, self._root = objects, root

    async def render(self, request: Message) -> Message:
        return await self._objects.render(request.copy(uri_path=(self._root, *request.opt.uri_path)))


@asynccontextmanager
async def gateway_and_node(
    *, base: bytes = bytes(32), agent: bool = True, awake_s: float = 20.0
) -> AsyncIterator[tuple[Gateway, ScriptedNode]]:
    port = free_port()
    async with (
        serve(host="127.0.0.1", port=port, awake_s=awake_s) as gateway,
        node_at(port, base=base, agent=agent) as node,
    ):
        yield gateway, node
