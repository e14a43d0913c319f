"""The connection check: what stands between this installation and a node, in plain words, worst first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta

from chirpstack_api import api
from django.utils import timezone

from devices.links.lorawan.chirpstack import Application, ChirpStack, ChirpStackError, Integration
from devices.links.lorawan.events import bearer_is_known
from devices.links.lorawan.models import LoRaWanDevice, NetworkServer
from devices.models import Node
from fleet.clock import fleet_time

# Nodes of which nothing was heard are looked at one by one: two calls each.
SILENT_EXAMPLES = 20
# Fleet time without any event from a server with nodes.
QUIET_S = 6 * 3600


@dataclass(frozen=True)
class Finding:
    """`level`: problem (nothing works until it is solved), warning (some nodes do not), good."""

    level: str
    subject: str
    message: str
    fix: str = ""


def check(*, server_id: int) -> list[Finding]:
    """Looks, and keeps what it found with the server."""
    server = NetworkServer.objects.get(pk=server_id)
    now = timezone.now()
    try:
        findings = list(_findings(server, ChirpStack(server), now))
    except ChirpStackError as error:
        findings = [Finding("problem", error.field, error.message, error.fix)]
    order = {"problem": 0, "warning": 1, "good": 2}
    findings.sort(key=lambda finding: order[finding.level])
    NetworkServer.objects.filter(pk=server.pk).update(
        checked_at=now, findings=[asdict(finding) for finding in findings]
    )
    return findings


def _findings(server: NetworkServer, client: ChirpStack, now: datetime) -> Iterator[Finding]:
    applications = list(client.applications())
    if not applications:
        where = f"tenant {server.tenant_id}" if server.tenant_id else "any tenant that this key may see"
        yield Finding(
            "problem",
            "applications",
            f"There is no application in {where}.",
            "Make one in ChirpStack, or correct the tenant id of this server.",
        )
        return
    yield Finding(
        "good", "API", f"{server.target} answers, and the token may read {_counted(len(applications), 'application')}."
    )
    profiles: set[str] = set()
    for application in applications:
        yield from _integration(server, client, application)
        profiles |= {device.device_profile_id for device in client.devices(application.id)}
    for profile_id in sorted(profiles):
        yield from _profile(client.device_profile(profile_id))
    yield from _events(server, now)
    yield from _silent_nodes(server, client)


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _integration(server: NetworkServer, client: ChirpStack, application: Application) -> Iterator[Finding]:
    subject, fix = f"application {application.name}", "Press Set up, or run manage.py chirpstack setup."
    found = client.integration(application.id)
    others = others_than(server, found)
    if found is None:
        yield Finding("problem", subject, "It has no HTTP integration, so no event comes here.", fix)
    elif server.events_url not in found.urls:
        fix = f"{fix} Our address is added; the others stay." if found.urls else fix
        where = " and ".join(found.urls) or "no address"
        yield Finding("problem", subject, f"Its events go to {where}, not to {server.events_url}.", fix)
    elif not any(bearer_is_known(server, value) for value in found.headers.values()):
        yield Finding(
            "problem", subject, "Its events do not bring the secret of this server, so they are refused.", fix
        )
    elif found.encoding != server.event_encoding and not others:
        yield Finding("warning", subject, f"Its events are {found.encoding}, not {server.event_encoding}.", fix)
    else:
        also = f", and to {' and '.join(others)} too" if others else ""
        yield Finding("good", subject, f"Its events come here{also}.")


def others_than(server: NetworkServer, known: Integration | None) -> tuple[str, ...]:
    """Addresses of others that this integration posts to. Ours with a slash behind it is ours, and wrong."""
    return tuple(url for url in (known.urls if known else ()) if url.rstrip("/") != server.events_url)


def _profile(profile: api.DeviceProfile) -> Iterator[Finding]:
    subject = f"device profile {profile.name}"
    if profile.supports_class_c:
        yield Finding(
            "problem",
            subject,
            "“Supports Class C” is ticked: ChirpStack sends at once, while a class A node does not listen.",
            "Untick it for nodes that listen only after their uplinks.",
        )
    if profile.app_layer_params.ts004_version != api.TS004_NOT_IMPLEMENTED:
        yield Finding(
            "problem",
            subject,
            "TS004 is set as implemented: ChirpStack then takes the answers of our transfers for its own.",
            "Set the fragmentation package to “Not implemented”.",
        )
    if not profile.supports_otaa and not (profile.abp_rx2_freq or profile.abp_rx1_delay):
        yield Finding(
            "warning",
            subject,
            "It activates by personalisation and names no receive window.",
            "Set RX1 delay and RX2 frequency to what the firmware uses, or let the nodes join (OTAA).",
        )


def _events(server: NetworkServer, now: datetime) -> Iterator[Finding]:
    fix = "Check that ChirpStack reaches that address: its log shows refused requests of the HTTP integration."
    if server.last_event_at is None:
        yield Finding("warning", "events", f"No event has ever come to {server.events_url}.", fix)
    elif server.last_event_at < now - max(fleet_time(QUIET_S), timedelta(minutes=1)):
        yield Finding("warning", "events", f"The last event came at {server.last_event_at:%Y-%m-%d %H:%M} UTC.", fix)
    else:
        yield Finding("good", "events", f"The last event came at {server.last_event_at:%Y-%m-%d %H:%M:%S} UTC.")


def _silent_nodes(server: NetworkServer, client: ChirpStack) -> Iterator[Finding]:
    unheard = Node.objects.filter(lorawan__server=server, radio=None).order_by("pk")
    with_keys: list[str] = []
    without: list[str] = []
    for dev_eui in unheard.values_list("endpoint", flat=True)[:SILENT_EXAMPLES]:
        if not client.is_activated(dev_eui):
            (with_keys if client.has_keys(dev_eui) else without).append(dev_eui)
    for devices, message, fix in (
        (with_keys, "has keys and has not joined yet", "Switch it on within reach of a gateway."),
        (without, "has neither keys nor an activation", "Enter its keys in ChirpStack."),
    ):
        if devices:
            others = f"; so have {len(devices) - 1} more of the first {SILENT_EXAMPLES} unheard" if devices[1:] else ""
            yield Finding("warning", f"device {devices[0]}", f"It {message}{others}.", fix)
    if count := LoRaWanDevice.objects.filter(server=server).count():
        yield Finding("good", "nodes", f"{_counted(count, 'node')} reached through this server.")
    else:
        yield Finding("warning", "nodes", "No node is reached through this server.", "Press Discover nodes.")
