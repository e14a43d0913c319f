"""The LwM2M client of a node (OMA-TS-LightweightM2M 1.1): registration, Send, and the resources that a server reads."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Protocol
from urllib.parse import urlsplit

import cbor2

from devices.simulator import coap
from devices.simulator.coap import Message
from devices.simulator.exchange import Answer, CoapEndpoint
from devices.simulator.network import Address

_LINKS = b'</>;rt="oma.lwm2m";ct=112,</1/0>,</3/0>,</5/0>,</26241/0>'
_SENML_NAME, _SENML_VALUE, _SENML_STRING, _SENML_DATA = 0, 2, 3, 8  # RFC 8428, table 4

Value = int | str | bytes


class Resources(Protocol):
    """What a node offers to its server. Writing and executing give a CoAP response code."""

    def read(self, path: str) -> Value | None:
        """None where there is no such resource."""

    def write(self, path: str, value: bytes) -> int: ...

    def execute(self, path: str) -> int: ...


class RegistrationRefused(Exception):
    """The server knows no such endpoint."""


class UriInvalid(ValueError):
    """The address of a package is not one that a node can pull from."""


class Lwm2mClient:
    def __init__(self, endpoint: CoapEndpoint, server: Address, name: str, lifetime_s: int, version: str) -> None:
        self.location: list[bytes] | None = None  # where the server keeps the registration
        self._endpoint, self._server, self._name, self._lifetime_s = endpoint, server, name, lifetime_s
        self.can_send = version != "1.0"
        self._binding = ("b=U", "Q") if self.can_send else ("b=UQ",)
        self._version = version

    async def register(self) -> None:
        """Raises NoAnswer, RegistrationRefused."""
        query = (f"ep={self._name}", f"lt={self._lifetime_s}", f"lwm2m={self._version}", *self._binding)
        options = [(coap.URI_PATH, b"rd"), (coap.CONTENT_FORMAT, coap.uint(coap.LINK_FORMAT))]
        options += [(coap.URI_QUERY, item.encode()) for item in query]
        answer = await self._endpoint.request(self._server, coap.POST, options, _LINKS)
        if answer.code != coap.CREATED:
            raise RegistrationRefused(f"{self._name}: registration answered {_dotted(answer.code)}")
        self.location = answer.values(coap.LOCATION_PATH)

    async def update(self) -> None:
        """Renew the registration, or register where the server has forgotten it.

        Raises NoAnswer, RegistrationRefused.
        """
        if self.location is None:
            await self.register()
            return
        path = [(coap.URI_PATH, segment) for segment in self.location]
        answer = await self._endpoint.request(self._server, coap.POST, path)
        if answer.code != coap.CHANGED:
            self.location = None
            await self.register()

    async def send(self, name: str, value: bytes) -> bool:
        """LwM2M Send of one opaque resource; whether the server took it. Raises NoAnswer."""
        options = [(coap.URI_PATH, b"dp"), (coap.CONTENT_FORMAT, coap.uint(coap.SENML_CBOR))]
        pack = cbor2.dumps([{_SENML_NAME: name, _SENML_DATA: value}])
        answer = await self._endpoint.request(self._server, coap.POST, options, pack)
        return answer.code == coap.CHANGED

    async def block(self, uri: str, offset: int, size: int) -> Message:
        """One block of a package by Block2, `size` bytes at `offset`. Raises NoAnswer, UriInvalid."""
        address, options = parse_uri(uri, self._server)
        return await self._endpoint.request(
            address, coap.GET, [*options, (coap.BLOCK2, coap.block_option(offset, size))]
        )


def parse_uri(uri: str, server: Address) -> tuple[Address, list[tuple[int, bytes]]]:
    """Where to send, and Uri-Path and Uri-Query. A node has no name service: the host is the server or an IP address.

    Raises UriInvalid.
    """
    try:
        parts = urlsplit(uri)
        port = parts.port or 5683
    except ValueError as error:
        raise UriInvalid(f"package URI: {error}") from error
    if parts.scheme != "coap" or not parts.hostname:
        raise UriInvalid(f"package URI: {uri!r}, must be coap://host:port/path")
    try:
        host = str(ipaddress.ip_address(parts.hostname))
    except ValueError as error:
        raise UriInvalid(f"package URI: host {parts.hostname!r} must be an IP address") from error
    if (":" in host) != (":" in server[0]):
        raise UriInvalid(f"package URI: host {host} is of another address family than the server {server[0]}")
    options = [(coap.URI_PATH, segment.encode()) for segment in parts.path.split("/")[1:]]
    options += [(coap.URI_QUERY, item.encode()) for item in parts.query.split("&") if item]
    return (host, port), options


def serve(resources: Resources, request: Message) -> Answer:
    """One server request on the resources of a node, as LwM2M 1.1 (transport, 6.4.4) maps it to CoAP."""
    if request.values(coap.BLOCK1):
        return coap.code(4, 13), [], b""  # packages are pulled; all that is written fits in one message
    if request.code == coap.GET:
        value = resources.read(request.path)
        return (coap.NOT_FOUND, [], b"") if value is None else _content(request, value)
    if request.code == coap.PUT:
        if request.uint(coap.CONTENT_FORMAT) not in (None, coap.TEXT, coap.OCTETS):
            return coap.code(4, 15), [], b""
        return resources.write(request.path, request.payload), [], b""
    if request.code == coap.POST:
        return resources.execute(request.path), [], b""
    return coap.METHOD_NOT_ALLOWED, [], b""


def _content(request: Message, value: Value) -> Answer:
    plain = coap.OCTETS if isinstance(value, bytes) else coap.TEXT
    accept = request.uint(coap.ACCEPT)
    if accept == coap.SENML_CBOR:
        label = {int: _SENML_VALUE, str: _SENML_STRING, bytes: _SENML_DATA}[type(value)]
        record: Mapping[int, Value] = {_SENML_NAME: request.path, label: value}
        return coap.CONTENT, [(coap.CONTENT_FORMAT, coap.uint(coap.SENML_CBOR))], cbor2.dumps([record])
    if accept not in (None, plain):
        return coap.NOT_ACCEPTABLE, [], b""
    payload = value if isinstance(value, bytes) else str(value).encode()
    return coap.CONTENT, [(coap.CONTENT_FORMAT, coap.uint(plain))], payload


def _dotted(code: int) -> str:
    return f"{code >> 5}.{code & 31:02}"
