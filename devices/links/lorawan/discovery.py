"""Nodes from what ChirpStack knows: a device whose tags say what it is becomes a node, the others are noted."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from chirpstack_api import common
from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils import timezone

from devices.links.lorawan.chirpstack import ChirpStack, Device
from devices.links.lorawan.models import LoRaWanDevice, NetworkServer
from devices.links.lorawan.regions import REGIONS
from devices.models import DEV_EUI, FirmwareBuild, HardwareProfile, LinkKind, Node, UnknownEndpoint
from devices.services import record_unknown_endpoint
from fleet.audit.models import record

BATCH = 500
TAGS = ("profile", "firmware_build", "site")
LABELS_MAX = 32
_LABEL = re.compile(r"[A-Za-z0-9_./-]{1,64}")


@dataclass
class Discovery:
    """How many devices there were, and what became of them."""

    devices: int = 0
    registered: int = 0
    known: int = 0
    incomplete: int = 0  # noted as unknown endpoints, with what is missing


def discover(*, server_id: int, actor: str) -> Discovery:
    """Again is harmless: nodes that exist keep what people gave them. Raises ChirpStackError."""
    server = NetworkServer.objects.get(pk=server_id)
    client, found = ChirpStack(server), Discovery()
    tags = _Tags(client)
    regions: dict[str, str] = {}
    for application in client.applications():
        devices = client.devices(application.id)
        while batch := list(islice(devices, BATCH)):
            batch = tags.of(batch)
            for device in batch:
                if device.device_profile_id not in regions:
                    regions[device.device_profile_id] = _region(client, server, device.device_profile_id)
            _take(server, application.id, batch, regions, found)
    record(
        actor=actor,
        action="network_server.discovered",
        subject=server,
        after={"devices": found.devices, "registered": found.registered, "incomplete": found.incomplete},
    )
    return found


class _Tags:
    """Of devices that a list shows without: an older ChirpStack leaves them out there. It is asked for each device until
    so many in a row had none in truth either, for a call a device would cost a large fleet minutes."""

    PATIENCE = 20

    def __init__(self, client: ChirpStack) -> None:
        self._client = client
        self._left = self.PATIENCE

    def of(self, devices: Sequence[Device]) -> list[Device]:
        return [self._looked_up(device) for device in devices]

    def _looked_up(self, device: Device) -> Device:
        if device.tags or not self._left:
            return device
        tags = self._client.tags(device.dev_eui)
        self._left = self.PATIENCE if tags else self._left - 1
        return replace(device, tags=tags)


def _region(client: ChirpStack, server: NetworkServer, profile_id: str) -> str:
    name = common.Region.Name(client.device_profile(profile_id).region).partition("_")[0]
    return name if name in REGIONS else server.region


@transaction.atomic
def _take(
    server: NetworkServer, application_id: str, devices: Sequence[Device], regions: Mapping[str, str], found: Discovery
) -> None:
    profiles = {profile.name: profile for profile in HardwareProfile.objects.all()}
    builds = {build.name: build for build in FirmwareBuild.objects.all()}
    known = set(
        Node.objects.filter(endpoint__in=[device.dev_eui for device in devices]).values_list("endpoint", flat=True)
    )
    made = []
    for device in devices:
        found.devices += 1
        if device.dev_eui in known:
            found.known += 1
            continue
        node = _node(device, profiles, builds)
        if isinstance(node, Node):
            made.append(node)
            continue
        found.incomplete += 1
        record_unknown_endpoint(
            link=LinkKind.LORAWAN,
            endpoint=device.dev_eui,
            address=f"ChirpStack {server.name}",
            missing=node,
            now=timezone.now(),
        )
    Node.objects.bulk_create(made, ignore_conflicts=True)
    found.registered += len(made)
    UnknownEndpoint.objects.filter(link=LinkKind.LORAWAN, endpoint__in=[node.endpoint for node in made]).delete()
    _bind(server, application_id, devices, regions)


def _bind(server: NetworkServer, application_id: str, devices: Sequence[Device], regions: Mapping[str, str]) -> None:
    """How each node is reached; a device that moved here from another server follows."""
    by_eui = {device.dev_eui: device for device in devices}
    nodes = Node.objects.filter(link=LinkKind.LORAWAN, endpoint__in=by_eui).order_by("pk").values_list("pk", "endpoint")
    LoRaWanDevice.objects.bulk_create(
        (
            LoRaWanDevice(
                node_id=pk,
                server=server,
                application_id=application_id,
                device_profile_id=by_eui[endpoint].device_profile_id,
                region=regions[by_eui[endpoint].device_profile_id],
            )
            for pk, endpoint in nodes
        ),
        update_conflicts=True,
        unique_fields=["node"],
        update_fields=["server", "application_id", "device_profile_id"],
    )


def _node(device: Device, profiles: Mapping[str, HardwareProfile], builds: Mapping[str, FirmwareBuild]) -> Node | str:
    """The node that its tags describe, or what is missing, in plain words."""
    missing = list(_missing(device, profiles, builds))
    if missing:
        return "; ".join(missing) + "."
    labels = {name: value for name, value in sorted(device.tags.items()) if name not in TAGS and _LABEL.fullmatch(name)}
    node = Node(
        endpoint=device.dev_eui,
        link=LinkKind.LORAWAN,
        profile=profiles[device.tags["profile"]],
        firmware_build=builds[device.tags["firmware_build"]],
        site=device.tags.get("site", ""),
        labels=dict(islice(((name, value[:128]) for name, value in labels.items()), LABELS_MAX)),
    )
    try:
        node.clean_fields()
    except ValidationError as error:
        return "; ".join(f"tag {field}: {messages[0]}" for field, messages in error.message_dict.items())
    return node


def _missing(
    device: Device, profiles: Mapping[str, HardwareProfile], builds: Mapping[str, FirmwareBuild]
) -> Iterator[str]:
    if not DEV_EUI.fullmatch(device.dev_eui):
        yield f"DevEUI {device.dev_eui[:32]!r} is not 16 hex digits"
    for tag, rows in (("profile", profiles), ("firmware_build", builds)):
        value = device.tags.get(tag)
        if not value:
            yield f"tag {tag} is missing"
        elif value not in rows:
            yield f"tag {tag}: {value[:64]!r} is unknown here"
