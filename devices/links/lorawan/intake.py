"""What the kept events of ChirpStack say: signs of life, reports, answers. Drained in batches, each node in order.

A node's rows are locked while its events are worked off, and the events are marked in the same transaction: a kill
at any statement leaves them to be worked off again, two workers never work off one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta

import structlog
from django.db import connection, transaction

from devices.links.lorawan.hearing import Hearing
from devices.links.lorawan.models import (
    CommandExchange,
    FragmentSession,
    LoRaWanDevice,
    NetworkEvent,
    NetworkEventKind,
)
from devices.models import OPEN_DELIVERY, Delivery, LinkKind
from devices.services import Sighting, append_events, record_presence
from fleet.clock import fleet_time

log = structlog.get_logger(__name__)

BATCH = 500
# Doubles come within moments; a day also serves to see what happened.
DOUBLES_WITHIN = timedelta(minutes=1)
KEEP = timedelta(days=1)
# Uplinks in a transfer follow each other quickly and say nothing of the node's own rhythm.
BUSY_S = 15 * 60

_RADIO = """
INSERT INTO devices_noderadio AS r (node_id, at, region, data_rate, rssi_dbm, snr_db, gateway_id, frame_counter)
SELECT * FROM unnest(%s::bigint[], %s::timestamptz[], %s::text[], %s::smallint[], %s::smallint[], %s::float8[],
                     %s::text[], %s::bigint[]) ORDER BY 1
ON CONFLICT (node_id) DO UPDATE SET
    at = excluded.at, region = excluded.region, data_rate = excluded.data_rate, rssi_dbm = excluded.rssi_dbm,
    snr_db = excluded.snr_db, gateway_id = excluded.gateway_id, frame_counter = excluded.frame_counter
WHERE r.at <= excluded.at
"""


def drain(*, now: datetime, limit: int = BATCH) -> int:
    """Events worked off: call until it returns 0."""
    with transaction.atomic():
        waiting = NetworkEvent.objects.filter(processed_at=None).order_by("id")
        nodes = set(waiting.values_list("node_id", flat=True)[:limit])
        devices = {
            device.pk: device
            for device in LoRaWanDevice.objects.filter(pk__in=nodes)
            .order_by("pk")
            .select_for_update(skip_locked=True, of=("self",))
        }
        events = list(waiting.filter(node_id__in=devices)[:limit])
        if events:
            _work_off(devices, events, now)
            NetworkEvent.objects.filter(pk__in=[event.pk for event in events]).update(processed_at=now)
    return len(events)


def prune(*, now: datetime) -> int:
    """Drops events that were worked off a day ago."""
    return NetworkEvent.objects.filter(processed_at__lt=now - KEEP).delete()[0]


def _work_off(devices: dict[int, LoRaWanDevice], events: Sequence[NetworkEvent], now: datetime) -> None:
    deliveries: defaultdict[int, list[Delivery]] = defaultdict(list)
    found = Delivery.objects.filter(link=LinkKind.LORAWAN, node_id__in=devices, state__in=OPEN_DELIVERY).order_by("pk")
    for delivery in found:
        deliveries[delivery.node_id].append(delivery)
    open_ids = [delivery.pk for items in deliveries.values() for delivery in items]
    sessions, exchanges = FragmentSession.objects.in_bulk(open_ids), CommandExchange.objects.in_bulk(open_ids)
    hearings = {pk: Hearing(device, deliveries[pk], sessions, exchanges) for pk, device in devices.items()}
    radios: dict[int, NetworkEvent] = {}
    heard: dict[int, datetime] = {}
    for event in events:
        hearing = hearings[event.node_id]
        if event.kind == NetworkEventKind.UP:
            if _is_double(hearing.device, event):
                continue
            heard[event.node_id] = event.at
            if hearing.uplink(event.body, at=event.at):
                radios[event.node_id] = event
        else:
            hearing.event(event.kind, event.body, at=event.at)
    append_events([event for hearing in hearings.values() for event in hearing.events])
    _save(hearings, now)
    if heard:
        _note_presence(hearings, heard, radios)
    if radios:
        _note_radio(radios, devices)


def _is_double(device: LoRaWanDevice, event: NetworkEvent) -> bool:
    """The same frame under another id: ChirpStack gives a new one where gateways deliver too far apart."""
    body = event.body
    if body["dev_addr"] != device.dev_addr or body["f_cnt"] > device.frame_counter:
        return False
    same = NetworkEvent.objects.filter(
        node_id=event.node_id,
        kind=NetworkEventKind.UP,
        pk__lt=event.pk,
        # Later, the same counter is that of a device which was reset and joins nobody.
        at__gte=event.at - DOUBLES_WITHIN,
        body__f_cnt=body["f_cnt"],
        body__dev_addr=body["dev_addr"],
        body__data=body["data"],
    )
    if device.joined_at is not None:
        same = same.filter(at__gte=device.joined_at)
    return same.exists()


def _save(hearings: dict[int, Hearing], now: datetime) -> None:
    for hearing in hearings.values():
        device = hearing.device
        if hearing.has_work and (device.due_at is None or device.due_at > now):
            device.due_at = now
        # `leased_until` belongs to the feeder, which may write it at the same moment only after this commit.
        device.save()
        for row in (*hearing.sessions, *hearing.exchanges):
            row.save()


def _note_presence(hearings: dict[int, Hearing], heard: dict[int, datetime], radios: dict[int, NetworkEvent]) -> None:
    record_presence(
        sightings=[
            Sighting(
                node_id=node_id,
                seen_at=at,
                awake_until=at + fleet_time(BUSY_S) if hearings[node_id].sessions else None,
                address=f"gateway {radios[node_id].body['gateway_id']}" if node_id in radios else "",
            )
            for node_id, at in heard.items()
        ]
    )


def _note_radio(radios: dict[int, NetworkEvent], devices: dict[int, LoRaWanDevice]) -> None:
    rows = [
        (
            node_id,
            event.at,
            event.body["region"] or devices[node_id].region,
            event.body["dr"],
            event.body["rssi"],
            event.body["snr"],
            event.body["gateway_id"],
            event.body["f_cnt"],
        )
        for node_id, event in sorted(radios.items())
    ]
    with connection.cursor() as cursor:
        cursor.execute(_RADIO, [list(column) for column in zip(*rows, strict=True)])
