"""REST: ChirpStack servers. Token and secret can be written and never read."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any, Literal

from django.conf import settings
from django.http import HttpRequest
from django.shortcuts import get_object_or_404
from ninja import Router, Schema, Status
from pydantic import Field

from devices.api import Strict
from devices.links.lorawan.checking import check
from devices.links.lorawan.discovery import discover
from devices.links.lorawan.models import NetworkServer
from devices.links.lorawan.servers import add_server, change_server, remove_server, set_up
from fleet.accounts.authentication import BearerToken, actor_of, node_keeper, viewer
from fleet.accounts.permissions import Scope

router = Router(tags=["network servers"])
admin = BearerToken(Scope.ADMIN)
Text = Annotated[str, Field(max_length=255, pattern=r"^[^\x00]*$")]
Region = Literal["EU868", "US915", "AS923"]
Encoding = Literal["json", "protobuf"]
# The embedded database takes no larger key.
ServerId = Annotated[int, Field(ge=1, le=2**63 - 1)]


class ServerIn(Strict):
    """`target` is host:port of ChirpStack's gRPC API; `event_base_url` is where ChirpStack reaches this server."""

    name: Text
    target: Text
    token: Text
    tls: bool = False
    tenant_id: Text = ""
    region: Region = "EU868"
    event_base_url: Text = ""
    event_encoding: Encoding = "json"
    event_secret: Text = ""


class ServerChange(Strict):
    """What is left out stays as it is."""

    name: Text | None = None
    target: Text | None = None
    token: Text | None = None
    tls: bool | None = None
    tenant_id: Text | None = None
    region: Region | None = None
    event_base_url: Text | None = None
    event_encoding: Encoding | None = None
    event_secret: Text | None = None


class FindingOut(Schema):
    level: str
    subject: str
    message: str
    fix: str


class ServerOut(Schema):
    id: int
    name: str
    target: str
    tls: bool
    tenant_id: str
    region: str
    event_base_url: str
    events_url: str
    event_encoding: str
    last_event_at: datetime | None
    checked_at: datetime | None
    findings: list[FindingOut]


class SetUpOut(Schema):
    applications: list[str]


class DiscoveryOut(Schema):
    devices: int
    registered: int
    known: int
    incomplete: int


@router.get("", response=list[ServerOut], auth=viewer)
def list_network_servers(
    request: HttpRequest, after: Text = "", limit: Annotated[int, Field(ge=1, le=100)] = 100
) -> object:
    return NetworkServer.objects.filter(name__gt=after)[:limit]


@router.post("", response={201: ServerOut}, auth=admin)
def add_network_server(request: HttpRequest, server: ServerIn) -> Status[NetworkServer]:
    values = server.dict()
    values["event_base_url"] = values["event_base_url"] or settings.PUBLIC_URL
    return Status(201, add_server(actor=actor_of(request), **values))


@router.get("/{int:server_id}", response=ServerOut, auth=viewer)
def get_network_server(request: HttpRequest, server_id: ServerId) -> NetworkServer:
    return get_object_or_404(NetworkServer, pk=server_id)


@router.patch("/{int:server_id}", response=ServerOut, auth=admin)
def change_network_server(request: HttpRequest, server_id: ServerId, change: ServerChange) -> NetworkServer:
    get_object_or_404(NetworkServer, pk=server_id)
    given: dict[str, Any] = {name: value for name, value in change.dict().items() if value is not None}
    return change_server(server_id=server_id, actor=actor_of(request), **given)


@router.delete("/{int:server_id}", response={204: None}, auth=admin)
def remove_network_server(request: HttpRequest, server_id: ServerId) -> Status[None]:
    get_object_or_404(NetworkServer, pk=server_id)
    remove_server(server_id=server_id, actor=actor_of(request))
    return Status(204, None)


@router.post("/{int:server_id}/check", response=list[FindingOut], auth=node_keeper)
def check_network_server(request: HttpRequest, server_id: ServerId) -> list[dict[str, Any]]:
    """What stands between this installation and the nodes, worst first."""
    get_object_or_404(NetworkServer, pk=server_id)
    return [asdict(finding) for finding in check(server_id=server_id)]


@router.post("/{int:server_id}/setup", response=SetUpOut, auth=admin)
def set_up_network_server(request: HttpRequest, server_id: ServerId) -> dict[str, Any]:
    """Makes each application post its events here, with a new secret."""
    get_object_or_404(NetworkServer, pk=server_id)
    return {"applications": set_up(server_id=server_id, actor=actor_of(request))}


@router.post("/{int:server_id}/discover", response=DiscoveryOut, auth=admin)
def discover_nodes(request: HttpRequest, server_id: ServerId) -> dict[str, Any]:
    """Devices whose tags name a profile and a firmware build become nodes; the others, unknown endpoints."""
    get_object_or_404(NetworkServer, pk=server_id)
    return asdict(discover(server_id=server_id, actor=actor_of(request)))
