"""A network application for tests: gRPC down, the HTTP integration up, and its own TS004 sender. Nothing of the product."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import grpc
from chirpstack_api import api, integration
from google.protobuf import json_format

SECRET = "Bearer of-the-application"
EVENTS = {
    "up": integration.UplinkEvent,
    "join": integration.JoinEvent,
    "ack": integration.AckEvent,
    "txack": integration.TxAckEvent,
    "log": integration.LogEvent,
}


@dataclass(frozen=True)
class Received:
    name: str
    message: Any
    body: bytes
    headers: dict[str, str]


class Receiver:
    """An HTTP server that keeps each event it is sent, and answers `status`."""

    def __init__(self) -> None:
        self.events: list[Received] = []
        self.status = 204
        self.changed = threading.Condition()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                name = parse_qs(urlsplit(self.path).query)["event"][0]
                if self.headers["Content-Type"] == "application/json":
                    message = json_format.Parse(body, EVENTS[name]())
                else:
                    message = EVENTS[name].FromString(body)
                with receiver.changed:
                    receiver.events.append(Received(name, message, body, dict(self.headers)))
                    receiver.changed.notify_all()
                self.send_response(receiver.status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Nothing on the terminal."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/events"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def named(self, name: str) -> list[Any]:
        return [event.message for event in list(self.events) if event.name == name]

    def wait(self, condition: Callable[[], Any], within_s: float = 20.0) -> Any:
        """The first true value of `condition`, looked at after each event. Raises AssertionError."""
        with self.changed:
            value = self.changed.wait_for(condition, within_s)
        assert value, f"not within {within_s} s; got {[event.name for event in self.events[-12:]]}"
        return value


class Application:
    """`address`: HOST:PORT of the gRPC API."""

    def __init__(self, address: str, token: str) -> None:
        self.channel = grpc.insecure_channel(address)
        self.metadata = [("authorization", f"Bearer {token}")]
        self.devices = api.DeviceServiceStub(self.channel)
        self.applications = api.ApplicationServiceStub(self.channel)
        self.tenants = api.TenantServiceStub(self.channel)
        self.profiles = api.DeviceProfileServiceStub(self.channel)

    def close(self) -> None:
        self.channel.close()

    def call(self, method: Any, request: Any) -> Any:
        return method(request, metadata=self.metadata, timeout=10)

    def integrate(self, application_id: str, url: str, encoding: int = api.JSON) -> None:
        settings = api.HttpIntegration(
            application_id=application_id, headers={"Authorization": SECRET}, encoding=encoding, event_endpoint_url=url
        )
        self.call(self.applications.CreateHttpIntegration, api.CreateHttpIntegrationRequest(integration=settings))

    def enqueue(self, dev_eui: str, port: int, data: bytes, *, flush: bool = False, **fields: Any) -> str:
        item = api.DeviceQueueItem(dev_eui=dev_eui, f_port=port, data=data, **fields)
        request = api.EnqueueDeviceQueueItemRequest(queue_item=item, flush_queue=flush)
        return str(self.call(self.devices.Enqueue, request).id)

    def queue(self, dev_eui: str) -> list[Any]:
        return list(self.call(self.devices.GetQueue, api.GetDeviceQueueItemsRequest(dev_eui=dev_eui)).result)

    def send_block(self, dev_eui: str, block: bytes, size: int, *, parity: int = 0, dialect: str = "ts004-v1") -> None:
        """Everything of a TS004 session at once: setup, fragments, parity, status request."""
        rows = fragments(block, size)
        padding = len(rows) * size - len(block)
        setup = b"\x02\x00" + len(rows).to_bytes(2, "little") + bytes([size, 0, padding])
        self.enqueue(dev_eui, 201, setup + hashlib.sha256(block).digest()[:4])
        for number, row in enumerate(rows, 1):
            self.enqueue(dev_eui, 201, b"\x08" + number.to_bytes(2, "little") + row)
        for number in range(1, parity + 1):
            row = parity_row(rows, number, dialect)
            self.enqueue(dev_eui, 201, b"\x08" + (len(rows) + number).to_bytes(2, "little") + row)
        self.enqueue(dev_eui, 201, b"\x01\x01")


def fragments(block: bytes, size: int) -> list[bytes]:
    return [block[at : at + size].ljust(size, b"\0") for at in range(0, len(block), size)]


def parity_row(rows: list[bytes], number: int, dialect: str) -> bytes:
    """The parity fragment `number` (from 1), drawn with sets where the node uses bits."""
    count = len(rows)
    modulus = count + int(count.bit_count() == 1)
    state, drawn, times = 1 + 1001 * number, set(), 0
    while times < count // 2:
        while True:
            carry = (state ^ (state >> 5)) & 1
            state = (state >> 1) | (carry << 22)
            if state % modulus < count:
                break
        place = state % modulus
        if place in drawn and dialect == "ts004-v2":
            continue
        drawn.add(place)
        times += 1
    out = bytes(len(rows[0]))
    for place in drawn:
        out = bytes(left ^ right for left, right in zip(out, rows[place], strict=True))
    return out
