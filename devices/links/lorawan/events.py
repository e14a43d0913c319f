"""Where ChirpStack posts: checked, read, kept as a row, answered. A worker does the rest."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import structlog
from chirpstack_api import integration
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST
from google.protobuf import json_format
from google.protobuf.message import DecodeError

from devices.links.lorawan.models import (
    EventEncoding,
    LoRaWanDevice,
    NetworkEventKind,
    NetworkServer,
)
from devices.links.lorawan.regions import region_of
from devices.links.lorawan.wake import wake
from devices.models import DEV_EUI, LinkKind
from devices.services import record_unknown_endpoint
from fleet import prepared

log = structlog.get_logger(__name__)

# An uplink that hundreds of gateways heard is some 100 kB of JSON.
BODY_BYTES_MAX = 512 * 1024
# Brings our secret where the integration's Authorization belongs to another address that events go to.
OWN_HEADER = "Modelfleet-Authorization"
_LAST_EVENT_EVERY = timedelta(seconds=30)


class BadEvent(ValueError):
    """The body is no event; the message says why."""


@dataclass(frozen=True)
class Event:
    """What the link needs of one event; `key` is the same for its double."""

    kind: NetworkEventKind
    dev_eui: str
    application_id: str
    device_profile_id: str
    region: str | None
    key: str
    body: dict[str, Any]


@csrf_exempt
@require_POST
def receive(request: HttpRequest, server_id: int) -> HttpResponse:
    """204 when the event is kept, known already or of no use; 401, 413 or 400 with the reason in plain text."""
    server = _server(server_id)
    if server is None or not _is_authentic(server, request):
        return _text(401, "Authorization: send the secret that the set-up of this server has put into the integration.")
    if int(request.META.get("CONTENT_LENGTH") or 0) > BODY_BYTES_MAX:
        return _text(413, f"Content-Length: at most {BODY_BYTES_MAX} bytes are read.")
    kind = request.GET.get("event", "")
    if kind in NetworkEventKind.values:
        is_json = "json" in request.headers.get("Content-Type", "") or (
            "octet-stream" not in request.headers.get("Content-Type", "")
            and server.event_encoding == EventEncoding.JSON
        )
        try:
            event = read_event(NetworkEventKind(kind), request.body, is_json=is_json)
        except BadEvent as error:
            log.warning("chirpstack.bad-event", server=server.name, kind=kind, reason=str(error))
            return _text(400, str(error))
        keep(server, event)
    now = timezone.now()
    if server.last_event_at is None or server.last_event_at < now - _LAST_EVENT_EVERY:
        NetworkServer.objects.filter(pk=server.pk).update(last_event_at=now)
    return HttpResponse(status=204)


def _server(server_id: int) -> NetworkServer | None:
    """With the columns that an event needs."""
    rows = prepared.run(_SERVER, {"id": server_id})
    if not rows:
        return None
    *columns, hashes = rows[0]
    return NetworkServer(**dict(zip(_SERVER_COLUMNS, columns, strict=True)), event_secret_hashes=json.loads(hashes))


def _text(status: int, reason: str) -> HttpResponse:
    return HttpResponse(reason, status=status, content_type="text/plain; charset=utf-8")


def hash_of(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def bearer_is_known(server: NetworkServer, header: str) -> bool:
    """Whether this value of a header brings a secret of this server."""
    scheme, _, secret = header.partition(" ")
    given = hash_of(secret)
    matches = [hmac.compare_digest(given, known) for known in server.event_secret_hashes]
    return scheme.lower() == "bearer" and any(matches)


def _is_authentic(server: NetworkServer, request: HttpRequest) -> bool:
    return any(bearer_is_known(server, request.headers.get(name, "")) for name in (OWN_HEADER, "Authorization"))


def read_event(kind: NetworkEventKind, body: bytes, *, is_json: bool) -> Event:
    """Raises BadEvent."""
    message: Any = _MESSAGES[kind]()
    try:
        if is_json:
            json_format.Parse(body, message, ignore_unknown_fields=True)
        else:
            message.ParseFromString(body)
    except (json_format.ParseError, DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadEvent(f"body: no {kind} event: {str(error)[:200]}") from error
    dev_eui = message.device_info.dev_eui.lower()
    if not DEV_EUI.fullmatch(dev_eui):
        raise BadEvent(f"deviceInfo.devEui: {dev_eui[:32]!r}, must be 16 hex digits")
    key, content = _READERS[kind](message)
    return Event(
        kind=kind,
        dev_eui=dev_eui,
        application_id=message.device_info.application_id[:36],
        device_profile_id=message.device_info.device_profile_id[:36],
        region=region_of(getattr(message, "region_config_id", "")),
        # By what it says where ChirpStack gives no id.
        key=f"{kind}:{key}" if key else f"{kind}:{hashlib.sha256(body).hexdigest()}",
        body=content,
    )


def _read_up(message: Any) -> tuple[str, dict[str, Any]]:
    if message.HasField("join_server_context"):
        raise BadEvent("joinServerContext: the payload is encrypted; let the join server give ChirpStack the AppSKey")
    if len(message.data) > 255:
        raise BadEvent(f"data: {len(message.data)} bytes, must be at most 255")
    if message.dr > 15:
        raise BadEvent(f"dr: {message.dr}, must be 0..15")
    best = max(message.rx_info, key=lambda info: info.snr, default=None)
    return message.deduplication_id[:64], {
        "dev_addr": message.dev_addr[:8],
        "f_cnt": message.f_cnt,
        "f_port": message.f_port,
        "data": bytes(message.data).hex(),
        "dr": message.dr,
        "rssi": None if best is None else max(-32768, min(best.rssi, 32767)),
        "snr": None if best is None or best.snr != best.snr else round(best.snr, 2),
        "gateway_id": "" if best is None else best.gateway_id[:16],
        "region": region_of(message.region_config_id),
    }


def _read_join(message: Any) -> tuple[str, dict[str, Any]]:
    return message.deduplication_id[:64], {"dev_addr": message.dev_addr[:8]}


def _read_ack(message: Any) -> tuple[str, dict[str, Any]]:
    content = {"queue_item_id": message.queue_item_id[:36], "acknowledged": message.acknowledged}
    return message.queue_item_id[:64], content


def _read_txack(message: Any) -> tuple[str, dict[str, Any]]:
    return message.queue_item_id[:64], {"queue_item_id": message.queue_item_id[:36]}


def _read_log(message: Any) -> tuple[str, dict[str, Any]]:
    context = {key[:40]: value[:100] for key, value in list(message.context.items())[:10]}
    try:
        code = integration.LogCode.Name(message.code)
    except ValueError:
        code = str(message.code)
    return "", {"code": code, "description": message.description[:200], "context": context}


_MESSAGES: dict[str, Callable[[], Any]] = {
    NetworkEventKind.UP: integration.UplinkEvent,
    NetworkEventKind.JOIN: integration.JoinEvent,
    NetworkEventKind.ACK: integration.AckEvent,
    NetworkEventKind.TXACK: integration.TxAckEvent,
    NetworkEventKind.LOG: integration.LogEvent,
}
_READERS: dict[str, Callable[[Any], tuple[str, dict[str, Any]]]] = {
    NetworkEventKind.UP: _read_up,
    NetworkEventKind.JOIN: _read_join,
    NetworkEventKind.ACK: _read_ack,
    NetworkEventKind.TXACK: _read_txack,
    NetworkEventKind.LOG: _read_log,
}


# By hand, since each report of each node comes this way.
_SERVER_COLUMNS = ("id", "name", "region", "event_encoding", "last_event_at")
_SERVER = f"SELECT {', '.join(_SERVER_COLUMNS)}, event_secret_hashes FROM devices_networkserver WHERE id = %(id)s"  # noqa: S608
_KEEP = """
WITH node AS (
    SELECT n.id, EXISTS (SELECT 1 FROM devices_lorawandevice d WHERE d.node_id = n.id) AS has_device
    FROM devices_node n WHERE n.endpoint = %(endpoint)s AND n.link = 'lorawan'
), kept AS (
    INSERT INTO devices_networkevent (server_id, node_id, kind, key, at, body)
    SELECT %(server)s, id, %(kind)s, %(key)s, %(now)s, %(body)s::jsonb FROM node ON CONFLICT (server_id, key) DO NOTHING
)
SELECT id, has_device FROM node
"""


def keep(server: NetworkServer, event: Event) -> None:
    """Inserts the event for a worker; its double changes nothing. A device that no node stands for is noted."""
    now = timezone.now()
    values: dict[str, Any] = {
        "server": server.pk,
        "kind": str(event.kind),
        "key": event.key,
        "body": json.dumps(event.body),
    }
    found = prepared.run(_KEEP, {"endpoint": event.dev_eui, "now": now, **values})
    if not found:
        record_unknown_endpoint(
            link=LinkKind.LORAWAN,
            endpoint=event.dev_eui,
            address=f"ChirpStack {server.name}",
            missing="No node has this DevEUI: register it, or tag the device and discover again.",
            now=now,
        )
        return
    node_id, has_device = found[0]
    if not has_device:
        LoRaWanDevice.objects.bulk_create(
            [
                LoRaWanDevice(
                    node_id=node_id,
                    server=server,
                    application_id=event.application_id,
                    device_profile_id=event.device_profile_id,
                    region=event.region or server.region,
                )
            ],
            ignore_conflicts=True,
        )
    transaction.on_commit(wake)
