"""A gateway for tests on aiocoap: registers who comes, serves packages by Block2, keeps reports, asks nodes."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Callable
from typing import Any

import cbor2
from aiocoap import (
    CHANGED,
    CONTENT,
    CREATED,
    FORBIDDEN,
    GET,
    NOT_FOUND,
    POST,
    PUT,
    SERVICE_UNAVAILABLE,
    Context,
    Message,
    resource,
)
from aiocoap.numbers.constants import TransportTuning

# Else aiocoap sets SO_REUSEPORT, and the kernel may give one port to two gateways of tests that run side by side:
# each then hears half of the datagrams.
os.environ["AIOCOAP_REUSE_PORT"] = "0"


class Registrations(resource.Resource, resource.PathCapable):  # type: ignore[misc]
    def __init__(self, gateway: CoapGateway) -> None:
        super().__init__()
        self.gateway = gateway

    async def render_post(self, request: Message) -> Message:
        gateway = self.gateway
        if request.opt.uri_path == ("rd",):
            query = dict(item.partition("=")[::2] for item in request.opt.uri_query)
            if query["ep"] in gateway.refused:
                return Message(code=FORBIDDEN)
            gateway.registrations.append(query["ep"])
            gateway.remotes[query["ep"]] = request.remote
            return Message(code=CREATED, location_path=("rd", query["ep"]))
        endpoint = request.opt.uri_path[-1]
        if endpoint not in gateway.remotes:
            return Message(code=NOT_FOUND)
        gateway.updates.append(endpoint)
        gateway.remotes[endpoint] = request.remote
        return Message(code=CHANGED)


class Reports(resource.Resource):  # type: ignore[misc]
    def __init__(self, gateway: CoapGateway) -> None:
        super().__init__()
        self.gateway = gateway

    async def render_post(self, request: Message) -> Message:
        if request.remote not in self.gateway.remotes.values():
            return Message(code=NOT_FOUND)
        for record in cbor2.loads(request.payload):
            self.gateway.reports.append((request.remote.hostinfo, record[0], record[8]))
        return Message(code=self.gateway.report_answer)


class Packages(resource.Resource, resource.PathCapable):  # type: ignore[misc]
    def __init__(self, gateway: CoapGateway) -> None:
        super().__init__()
        self.gateway = gateway

    async def needs_blockwise_assembly(self, request: Message) -> bool:
        return False

    async def render_get(self, request: Message) -> Message:
        data = self.gateway.packages.get(request.opt.uri_path[-1])
        if data is None:
            return Message(code=NOT_FOUND)
        block = request.opt.block2
        start, exponent = block.start, min(block.size_exponent, self.gateway.largest_block_exponent)
        size = 1 << exponent + 4
        self.gateway.offsets.append(start)
        more = start + size < len(data)
        if self.gateway.trouble:
            self.gateway.trouble -= 1
            return Message(code=SERVICE_UNAVAILABLE)
        piece, etag = data[start : start + size], hashlib.sha256(data).digest()[:8]
        return Message(code=CONTENT, payload=piece, block2=(start // size, more, exponent), etag=etag)


class CoapGateway:
    """Use as `async with`; `address` is where it listens."""

    def __init__(self) -> None:
        self.registrations: list[str] = []
        self.updates: list[str] = []
        self.refused: set[str] = set()
        self.remotes: dict[str, Any] = {}
        self.reports: list[tuple[str, str, bytes]] = []
        self.report_answer = CHANGED
        self.packages: dict[str, bytes] = {}
        self.offsets: list[int] = []
        self.trouble = 0  # so many blocks are answered 5.03
        self.largest_block_exponent = 6
        self.address = ("127.0.0.1", 0)

    async def __aenter__(self) -> CoapGateway:
        site = resource.Site()
        site.add_resource(["dp"], Reports(self))
        root = _Root(site, Registrations(self), Packages(self))
        self._context = await Context.create_server_context(root, bind=("127.0.0.1", 0), transports=["udp6"])
        interface = self._context.request_interfaces[0].token_interface.message_interface
        self.address = ("127.0.0.1", interface.transport.get_extra_info("socket").getsockname()[1])
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._context.shutdown()

    async def ask(self, endpoint: str, code: Any, path: str, payload: bytes = b"", tries: int = 4) -> Message:
        """One request to a node where it last came from. Raises aiocoap's errors where it does not answer."""

        class Tuning(TransportTuning):  # type: ignore[misc]
            ACK_TIMEOUT = 0.1
            MAX_RETRANSMIT = tries

        request = Message(code=code, uri_path=path.strip("/").split("/"), payload=payload, transport_tuning=Tuning())
        request.remote = self.remotes[endpoint]
        return await asyncio.wait_for(self._context.request(request).response, 10)

    async def read(self, endpoint: str, path: str) -> bytes:
        answer = await self.ask(endpoint, GET, path)
        assert answer.code == CONTENT, answer.code
        return bytes(answer.payload)

    async def offer(self, endpoint: str, bundle: bytes) -> None:
        token = f"package-{len(self.packages)}"
        self.packages[token] = bundle
        uri = f"coap://{self.address[0]}:{self.address[1]}/b/{token}"
        answer = await self.ask(endpoint, PUT, "/5/0/1", uri.encode())
        assert answer.code == CHANGED, answer.code

    async def execute(self, endpoint: str) -> Any:
        return (await self.ask(endpoint, POST, "/5/0/2")).code

    def states(self) -> list[bytes]:
        """State reports without the doubles that a lost acknowledgement makes."""
        found: list[bytes] = []
        for _, name, value in self.reports:
            if name == "/26241/0/2" and value not in found[-1:]:
                found.append(value)
        return found


class _Root:
    """aiocoap's Site hands a request for exactly /rd to no PathCapable child, so paths are told apart here."""

    def __init__(self, site: Any, registrations: Any, packages: Any) -> None:
        self._site, self._registrations, self._packages = site, registrations, packages

    def __getattr__(self, name: str) -> Any:
        return getattr(self._site, name)

    def _of(self, request: Message) -> Any:
        first = request.opt.uri_path[:1]
        return {("rd",): self._registrations, ("b",): self._packages}.get(first, self._site)

    async def render_to_pipe(self, pipe: Any) -> None:
        await self._of(pipe.request).render_to_pipe(pipe)


async def until(condition: Callable[[], object], seconds: float = 20.0) -> None:
    """Wait until the condition holds; fails after `seconds`."""
    deadline = asyncio.get_running_loop().time() + seconds
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, "condition did not come true"
        await asyncio.sleep(0.01)
