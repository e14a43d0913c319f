"""A thin typed client of ChirpStack v4's gRPC API: one channel a process and server, a deadline a call, few errors."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import grpc
from chirpstack_api import api
from django.conf import settings

from devices.links.lorawan.models import EventEncoding, NetworkServer
from fleet.sealing import unseal

TOKEN_PURPOSE = "chirpstack-token"  # noqa: S105 - what the key is derived for
PAGE = 100


class ChirpStackError(Exception):
    """`field` of the network server to look at, and `fix`: what to do."""

    field, fix = "target", "Look into ChirpStack's log."

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def __str__(self) -> str:
        return f"{self.message} {self.fix}"


class Unreachable(ChirpStackError):
    fix = "Check host, port and TLS of the server, and that it runs."


class NotAllowed(ChirpStackError):
    field, fix = "token", "Make an API key in ChirpStack for this tenant (or an admin key) and save it here."


class NotFound(ChirpStackError):
    field, fix = "tenant_id", "It was deleted in ChirpStack, or belongs to another tenant: discover again."


class Invalid(ChirpStackError):
    """ChirpStack refuses the request, or fails on it."""


_ERRORS: dict[grpc.StatusCode, type[ChirpStackError]] = {
    grpc.StatusCode.UNAVAILABLE: Unreachable,
    grpc.StatusCode.DEADLINE_EXCEEDED: Unreachable,
    grpc.StatusCode.UNIMPLEMENTED: Unreachable,
    grpc.StatusCode.UNAUTHENTICATED: NotAllowed,
    grpc.StatusCode.PERMISSION_DENIED: NotAllowed,
    grpc.StatusCode.NOT_FOUND: NotFound,
}
_channels: dict[tuple[int, str, bool], grpc.Channel] = {}


def _channel(target: str, tls: bool) -> grpc.Channel:
    # By process: a channel that was made before a fork does not work after it.
    key = (os.getpid(), target, tls)
    if key not in _channels:
        _channels[key] = grpc.secure_channel(target, _credentials()) if tls else grpc.insecure_channel(target)
    return _channels[key]


def _credentials() -> grpc.ChannelCredentials:
    """The roots of CHIRPSTACK_CA_FILE, else those that gRPC brings. Raises OSError."""
    own = Path(settings.CHIRPSTACK_CA_FILE).read_bytes() if settings.CHIRPSTACK_CA_FILE else None
    return grpc.ssl_channel_credentials(own)


@dataclass(frozen=True)
class QueueItem:
    id: str
    port: int
    data: bytes
    is_pending: bool  # sent, and waits for its acknowledgement


@dataclass(frozen=True)
class Application:
    id: str
    name: str


@dataclass(frozen=True)
class Device:
    dev_eui: str
    name: str
    device_profile_id: str
    tags: dict[str, str]


@dataclass(frozen=True)
class Integration:
    """An application has one. ChirpStack posts each event to every address of it, with the same headers."""

    urls: tuple[str, ...]
    encoding: str
    headers: dict[str, str]


class ChirpStack:
    """Calls to one server. Every method raises ChirpStackError."""

    def __init__(self, server: NetworkServer) -> None:
        self._server = server
        try:
            channel = _channel(server.target, server.tls)
        except OSError as error:
            raise Unreachable(f"CHIRPSTACK_CA_FILE {settings.CHIRPSTACK_CA_FILE}: {error.strerror}.") from error
        self._devices = api.DeviceServiceStub(channel)
        self._applications = api.ApplicationServiceStub(channel)
        self._profiles = api.DeviceProfileServiceStub(channel)
        self._tenants = api.TenantServiceStub(channel)
        token = unseal(bytes(server.token_sealed), purpose=TOKEN_PURPOSE).decode()
        self._metadata = (("authorization", f"Bearer {token}"),)

    def _call(self, method: Callable[..., Any], request: Any, what: str) -> Any:
        try:
            return method(request, metadata=self._metadata, timeout=settings.CHIRPSTACK_TIMEOUT_S)
        except grpc.RpcError as error:
            self._refuse(error, what)

    def _refuse(self, error: Any, what: str) -> NoReturn:
        detail = (error.details() or error.code().name).rstrip(".")
        kind = _ERRORS.get(error.code(), Invalid)
        raise kind(f"{self._server.target}, {what}: {detail}.") from error

    # The device queue

    def queue(self, dev_eui: str) -> list[QueueItem]:
        answer = self._call(self._devices.GetQueue, api.GetDeviceQueueItemsRequest(dev_eui=dev_eui), "queue")
        return [QueueItem(item.id, item.f_port, bytes(item.data), item.is_pending) for item in answer.result]

    def enqueue(self, dev_eui: str, *, port: int, data: bytes, confirmed: bool) -> str:
        """The queue item's id."""
        item = api.DeviceQueueItem(dev_eui=dev_eui, f_port=port, data=data, confirmed=confirmed)
        answer = self._call(self._devices.Enqueue, api.EnqueueDeviceQueueItemRequest(queue_item=item), "enqueue")
        return str(answer.id)

    def flush(self, dev_eui: str) -> None:
        self._call(self._devices.FlushQueue, api.FlushDeviceQueueRequest(dev_eui=dev_eui), "flush the queue")

    # What there is

    def applications(self) -> Iterator[Application]:
        """Of the tenant that the server names, else of each tenant that the key may see."""
        for tenant_id in [self._server.tenant_id] if self._server.tenant_id else self._tenant_ids():
            yield from self._applications_of(tenant_id)

    def _applications_of(self, tenant_id: str) -> Iterator[Application]:
        def page(offset: int) -> Any:
            request = api.ListApplicationsRequest(limit=PAGE, offset=offset, tenant_id=tenant_id)
            return self._call(self._applications.List, request, "list applications")

        for item in _pages(page):
            yield Application(item.id, item.name)

    def _tenant_ids(self) -> list[str]:
        def page(offset: int) -> Any:
            request = api.ListTenantsRequest(limit=PAGE, offset=offset)
            return self._call(self._tenants.List, request, "list tenants (a tenant's own key needs its tenant id here)")

        return [str(item.id) for item in _pages(page)]

    def devices(self, application_id: str) -> Iterator[Device]:
        def page(offset: int) -> Any:
            request = api.ListDevicesRequest(limit=PAGE, offset=offset, application_id=application_id)
            return self._call(self._devices.List, request, "list devices")

        for item in _pages(page):
            yield Device(item.dev_eui.lower(), item.name, item.device_profile_id, dict(item.tags))

    def tags(self, dev_eui: str) -> dict[str, str]:
        """A list of devices brings them too, from a ChirpStack that is new enough."""
        answer = self._call(self._devices.Get, api.GetDeviceRequest(dev_eui=dev_eui), "device")
        return dict(answer.device.tags)

    def device_profile(self, profile_id: str) -> Any:
        """api.DeviceProfile."""
        request = api.GetDeviceProfileRequest(id=profile_id)
        return self._call(self._profiles.Get, request, "device profile").device_profile

    def has_keys(self, dev_eui: str) -> bool:
        return self._exists(self._devices.GetKeys, api.GetDeviceKeysRequest(dev_eui=dev_eui), "device keys")

    def is_activated(self, dev_eui: str) -> bool:
        try:
            answer = self._call(
                self._devices.GetActivation, api.GetDeviceActivationRequest(dev_eui=dev_eui), "activation"
            )
        except NotFound:
            return False
        return bool(answer.HasField("device_activation"))

    def _exists(self, method: Callable[..., Any], request: Any, what: str) -> bool:
        try:
            self._call(method, request, what)
        except NotFound:
            return False
        return True

    # The HTTP integration

    def integration(self, application_id: str) -> Integration | None:
        request = api.GetHttpIntegrationRequest(application_id=application_id)
        try:
            found = self._call(self._applications.GetHttpIntegration, request, "HTTP integration").integration
        except NotFound:
            return None
        encoding = EventEncoding.PROTOBUF if found.encoding == api.PROTOBUF else EventEncoding.JSON
        urls = tuple(url for part in found.event_endpoint_url.split(",") if (url := part.strip()))
        return Integration(urls, str(encoding), dict(found.headers))

    def set_integration(self, application_id: str, wanted: Integration, *, exists: bool) -> None:
        integration = api.HttpIntegration(
            application_id=application_id,
            event_endpoint_url=",".join(wanted.urls),
            encoding=api.PROTOBUF if wanted.encoding == EventEncoding.PROTOBUF else api.JSON,
            headers=wanted.headers,
        )
        if exists:
            request = api.UpdateHttpIntegrationRequest(integration=integration)
            self._call(self._applications.UpdateHttpIntegration, request, "update the HTTP integration")
        else:
            request = api.CreateHttpIntegrationRequest(integration=integration)
            self._call(self._applications.CreateHttpIntegration, request, "create the HTTP integration")


def _pages(page: Callable[[int], Any]) -> Iterator[Any]:
    offset = 0
    while True:
        answer = page(offset)
        yield from answer.result
        offset += len(answer.result)
        if not answer.result or offset >= answer.total_count:
            return
