"""A ChirpStack on the generated servicers, as far as these tests need it, and a class A node behind it.

The device queue does what ChirpStack does: first in first out, one item an uplink, too large ones deleted with a log
event, unconfirmed ones gone once sent.
"""

from __future__ import annotations

import http.client
import random
import uuid
from concurrent import futures
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import grpc
from chirpstack_api import api, common, gw, integration
from google.protobuf import json_format
from google.protobuf.message import Message

from devices.links.lorawan.fragmentation import Dialect, number_of, parity_positions

TOKEN = "the-api-key"
APPLICATION, PROFILE, TENANT = (str(uuid.UUID(int=number)) for number in (1, 2, 3))
DOWNLINK_BYTES = {0: 51, 1: 51, 2: 51, 3: 115, 4: 242, 5: 242}


class FarEnd(api.DeviceServiceServicer, api.ApplicationServiceServicer, api.DeviceProfileServiceServicer):  # type: ignore[misc]
    """Use as a context manager; `target` is where it listens. `refuse` maps a method to a status code."""

    def __init__(self) -> None:
        self.queues: dict[str, list[api.DeviceQueueItem]] = {}
        self.enqueued: list[api.DeviceQueueItem] = []
        self.flushes: list[str] = []
        self.integrations: dict[str, api.HttpIntegration] = {}
        self.applications = {APPLICATION: "fleet"}
        self.devices: list[api.DeviceListItem] = []
        self.activated: set[str] = set()
        self.keys: set[str] = set()
        self.profile = api.DeviceProfile(id=PROFILE, name="board", supports_otaa=True, region=common.EU868)
        self.refuse: dict[str, grpc.StatusCode] = {}
        self.calls: list[str] = []
        self.after_enqueue: Any = None
        self.encoding = api.JSON
        self.post_to, self.authorization = "", ""
        self.headers: dict[str, str] = {}
        # What a device's page says, where the list of devices does not.
        self.tags: dict[str, dict[str, str]] = {}
        self._servers: list[grpc.Server] = []

    def __enter__(self) -> FarEnd:
        self.target = f"127.0.0.1:{self._listen(None)}"
        return self

    def __exit__(self, *_: object) -> None:
        for server in self._servers:
            server.stop(None)

    def listen_with_tls(self, key: bytes, certificate: bytes) -> str:
        """Besides, at an address of its own, which it returns. Both in PEM, for localhost."""
        return f"localhost:{self._listen(grpc.ssl_server_credentials([(key, certificate)]))}"

    def _listen(self, credentials: grpc.ServerCredentials | None) -> int:
        server = grpc.server(futures.ThreadPoolExecutor(4))
        api.add_DeviceServiceServicer_to_server(self, server)
        api.add_ApplicationServiceServicer_to_server(Applications(self), server)
        api.add_DeviceProfileServiceServicer_to_server(Profiles(self), server)
        api.add_TenantServiceServicer_to_server(Tenants(self), server)
        at = "127.0.0.1:0"
        port = server.add_secure_port(at, credentials) if credentials else server.add_insecure_port(at)
        server.start()
        self._servers.append(server)
        return int(port)

    def check(self, context: Any, method: str) -> None:
        self.calls.append(method)
        if dict(context.invocation_metadata()).get("authorization") != f"Bearer {TOKEN}":
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "")
        if method in self.refuse:
            context.abort(self.refuse[method], "as the test asked for")

    def Enqueue(self, request: Any, context: Any) -> Any:
        self.check(context, "Enqueue")
        item = api.DeviceQueueItem()
        item.CopyFrom(request.queue_item)
        item.id = str(uuid.uuid4())
        self.queues.setdefault(item.dev_eui, []).append(item)
        self.enqueued.append(item)
        if self.after_enqueue is not None:
            self.after_enqueue()
        return api.EnqueueDeviceQueueItemResponse(id=item.id)

    def GetQueue(self, request: Any, context: Any) -> Any:
        self.check(context, "GetQueue")
        items = self.queues.get(request.dev_eui, [])
        return api.GetDeviceQueueItemsResponse(total_count=len(items), result=items)

    def FlushQueue(self, request: Any, context: Any) -> Any:
        self.check(context, "FlushQueue")
        self.flushes.append(request.dev_eui)
        self.queues[request.dev_eui] = []
        return _empty()

    def List(self, request: Any, context: Any) -> Any:
        self.check(context, "Device.List")
        page = self.devices[request.offset : request.offset + request.limit]
        return api.ListDevicesResponse(total_count=len(self.devices), result=page)

    def Get(self, request: Any, context: Any) -> Any:
        self.check(context, "Device.Get")
        device = api.Device(dev_eui=request.dev_eui, tags=self.tags.get(request.dev_eui, {}))
        return api.GetDeviceResponse(device=device)

    def GetKeys(self, request: Any, context: Any) -> Any:
        self.check(context, "GetKeys")
        if request.dev_eui not in self.keys:
            context.abort(grpc.StatusCode.NOT_FOUND, "Object does not exist (id: keys)")
        return api.GetDeviceKeysResponse(device_keys=api.DeviceKeys(dev_eui=request.dev_eui))

    def GetActivation(self, request: Any, context: Any) -> Any:
        self.check(context, "GetActivation")
        if request.dev_eui not in self.activated:
            return api.GetDeviceActivationResponse()
        return api.GetDeviceActivationResponse(device_activation=api.DeviceActivation(dev_eui=request.dev_eui))

    # Events

    def post(self, kind: str, event: Message) -> tuple[int, str]:
        """As the HTTP integration does it; status and body of the answer."""
        if self.encoding == api.JSON:
            body, content_type = json_format.MessageToJson(event).encode(), "application/json"
        else:
            body, content_type = event.SerializeToString(), "application/octet-stream"
        address = urlsplit(self.post_to)
        connection = http.client.HTTPConnection(address.netloc, timeout=10)
        headers = {"Content-Type": content_type, "Authorization": self.authorization, **self.headers}
        connection.request("POST", f"{address.path}?event={kind}", body, headers)
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        return answer.status, text


def _empty() -> Any:
    from google.protobuf.empty_pb2 import Empty

    return Empty()


class Tenants(api.TenantServiceServicer):  # type: ignore[misc]
    def __init__(self, far_end: FarEnd) -> None:
        self.far_end = far_end

    def List(self, request: Any, context: Any) -> Any:
        self.far_end.check(context, "Tenant.List")
        items = [api.TenantListItem(id=TENANT, name="tenant")][request.offset :]
        return api.ListTenantsResponse(total_count=1, result=items)


class Applications(api.ApplicationServiceServicer):  # type: ignore[misc]
    def __init__(self, far_end: FarEnd) -> None:
        self.far_end = far_end

    def List(self, request: Any, context: Any) -> Any:
        self.far_end.check(context, "Application.List")
        if request.tenant_id != TENANT:  # ChirpStack parses it, and knows no "all"
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"UUID parsing failed: {request.tenant_id!r}")
        items = [api.ApplicationListItem(id=key, name=name) for key, name in self.far_end.applications.items()]
        page = items[request.offset : request.offset + request.limit]
        return api.ListApplicationsResponse(total_count=len(items), result=page)

    def GetHttpIntegration(self, request: Any, context: Any) -> Any:
        self.far_end.check(context, "GetHttpIntegration")
        if request.application_id not in self.far_end.integrations:
            context.abort(grpc.StatusCode.NOT_FOUND, "Object does not exist (id: integration)")
        found = self.far_end.integrations[request.application_id]
        return api.GetHttpIntegrationResponse(integration=found)

    def CreateHttpIntegration(self, request: Any, context: Any) -> Any:
        self.far_end.check(context, "CreateHttpIntegration")
        if request.integration.application_id in self.far_end.integrations:
            context.abort(grpc.StatusCode.ALREADY_EXISTS, "exists")
        self.far_end.integrations[request.integration.application_id] = request.integration
        return _empty()

    def UpdateHttpIntegration(self, request: Any, context: Any) -> Any:
        self.far_end.check(context, "UpdateHttpIntegration")
        self.far_end.integrations[request.integration.application_id] = request.integration
        return _empty()


class Profiles(api.DeviceProfileServiceServicer):  # type: ignore[misc]
    def __init__(self, far_end: FarEnd) -> None:
        self.far_end = far_end

    def Get(self, request: Any, context: Any) -> Any:
        self.far_end.check(context, "DeviceProfile.Get")
        return api.GetDeviceProfileResponse(device_profile=self.far_end.profile)


@dataclass
class ClassA:
    """A node that decodes TS004 and speaks port 26; what it has to say goes one message an uplink."""

    far_end: FarEnd
    dev_eui: str = "0102030405060708"
    digest: bytes = bytes(32)
    state: int = 0
    cause: int = 0
    sequence: int = 7
    rate: int = 5
    dialect: Dialect = Dialect.V1
    dev_addr: str = "01aa0001"
    counter: int = 0
    setup: bytes = b""
    fragments: dict[int, bytes] = field(default_factory=dict)
    outbox: list[tuple[int, bytes]] = field(default_factory=list)
    got: list[bytes] = field(default_factory=list)
    seen_numbers: list[int] = field(default_factory=list)
    ahead: list[int] = field(default_factory=list)
    loss: float = 0.0
    chance: random.Random = field(default_factory=lambda: random.Random(1))
    takes: bool = True  # reports STAGED once it has everything
    digest_room: int = 32

    @property
    def info(self) -> Any:
        return integration.DeviceInfo(
            dev_eui=self.dev_eui, application_id=APPLICATION, device_profile_id=PROFILE, tenant_id=str(uuid.UUID(int=3))
        )

    def event(self, port: int = 0, data: bytes = b"", **fields: Any) -> Any:
        event = integration.UplinkEvent(
            deduplication_id=str(uuid.uuid4()),
            device_info=self.info,
            dev_addr=self.dev_addr,
            dr=self.rate,
            f_cnt=self.counter,
            f_port=port,
            data=data,
            rx_info=[gw.UplinkRxInfo(gateway_id="0016c001f153a14c", rssi=-97, snr=4.5)],
            region_config_id="eu868",
        )
        for name, value in fields.items():
            setattr(event, name, value)
        self.counter += 1
        return event

    def uplink(self) -> Any:
        """Sends the oldest message, or an empty frame, and hears what the window brings. Returns the event."""
        port, data = self.outbox.pop(0) if self.outbox else (0, b"")
        event = self.event(port, data)
        if self.chance.random() >= self.loss:
            assert self.far_end.post("up", event)[0] == 204
            self._window()
        return event

    def _window(self) -> None:
        queue = self.far_end.queues.setdefault(self.dev_eui, [])
        self.ahead.append(len(queue))
        while queue and len(queue[0].data) > DOWNLINK_BYTES[self.rate]:
            item = queue.pop(0)
            log = integration.LogEvent(device_info=self.info, code=integration.DOWNLINK_PAYLOAD_SIZE)
            log.context["max_payload_size"] = str(DOWNLINK_BYTES[self.rate])
            log.context["queue_item_id"] = item.id
            assert self.far_end.post("log", log)[0] == 204
        if not queue:
            return
        item = queue.pop(0)
        event = integration.TxAckEvent(device_info=self.info, queue_item_id=item.id)
        assert self.far_end.post("txack", event)[0] == 204
        heard = self.chance.random() >= self.loss
        if heard:
            self.hear(item.f_port, bytes(item.data))
        if item.confirmed:
            ack = integration.AckEvent(device_info=self.info, queue_item_id=item.id, acknowledged=heard)
            assert self.far_end.post("ack", ack)[0] == 204

    def hear(self, port: int, data: bytes) -> None:
        self.got.append(data)
        if port == 26 and data == b"\x02":
            self.tell()
        elif port == 26:
            self.outbox.append((26, bytes([0x40, data[0], 0])))
        elif data[0] == 2:
            self.setup, self.fragments = data, {}
            self.outbox.append((201, b"\x02\x00"))
        elif data[0] == 8 and self.setup:
            number = number_of(data) or 0
            self.seen_numbers.append(number)
            if len(data) - 3 == self.setup[4]:
                self.fragments[number] = data[3:]
            if self.block() is not None and self.takes and self.state != 2:
                self.state, self.sequence = 2, self.sequence + 1
                self.outbox.append((26, self.report()))
        elif data[0] == 1 and self.setup:
            missing = 0 if self.block() is not None else self.lacking()
            self.outbox.append((201, bytes([1]) + len(self.fragments).to_bytes(2, "little") + bytes([missing, 0])))

    def report(self) -> bytes:
        return bytes([0x10 | self.state, self.cause]) + self.digest[:4] + bytes(4) + bytes([self.sequence & 0xFF])

    def tell(self) -> None:
        """Digest, then state report."""
        pieces = [self.digest[at : at + self.digest_room] for at in range(0, len(self.digest), self.digest_room)]
        for index, piece in enumerate(pieces or [b""]):
            self.outbox.append((26, bytes([0x30 | index, len(pieces) or 1]) + piece))
        self.outbox.append((26, self.report()))

    def join(self) -> None:
        """A reset: nothing of the session is left, and its counters begin anew."""
        self.setup, self.fragments, self.outbox, self.counter = b"", {}, [], 0
        self.dev_addr = f"{int(self.dev_addr, 16) + 1:08x}"
        self.far_end.queues[self.dev_eui] = []
        event = integration.JoinEvent(deduplication_id=str(uuid.uuid4()), device_info=self.info, dev_addr=self.dev_addr)
        assert self.far_end.post("join", event)[0] == 204
        self.tell()

    def _equations(self) -> dict[int, tuple[int, int]]:
        count = int.from_bytes(self.setup[2:4], "little")
        rows: dict[int, tuple[int, int]] = {}
        for number, data in self.fragments.items():
            positions = [number - 1] if number <= count else parity_positions(number - count, count, self.dialect)
            mask, value = sum(1 << at for at in positions), int.from_bytes(data, "big")
            while mask and (top := mask.bit_length() - 1) in rows:
                mask, value = mask ^ rows[top][0], value ^ rows[top][1]
            if mask:
                rows[mask.bit_length() - 1] = (mask, value)
        return rows

    def lacking(self) -> int:
        return int.from_bytes(self.setup[2:4], "little") - len(self._equations())

    def block(self) -> bytes | None:
        """What it has put together, without padding."""
        rows, found = self._equations(), []
        count, size, padding = int.from_bytes(self.setup[2:4], "little"), self.setup[4], self.setup[6]
        if len(rows) < count:
            return None
        for top in range(count):
            mask, value = rows[top]
            for lower in range(top):
                if mask >> lower & 1:
                    value ^= found[lower]
            found.append(value)
        data = b"".join(value.to_bytes(size, "big") for value in found)
        return data[: len(data) - padding]
