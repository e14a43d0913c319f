"""Keeps ChirpStack's queues filled: each node that is due is leased, looked at and given what it needs.

1. Lease: its row says until when nobody else looks at it. A worker that dies leaves a lease that ends.
2. Flush its queue where a delivery was cancelled, then read the queue: only ChirpStack knows what is in it.
3. Decide with the row locked; fragment numbers are used up before the fragments leave, so that none goes twice.
4. Enqueue without a lock. What was not reached goes back; what may have left counts as lost, and parity repairs it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog
from django.db import transaction
from django.db.models import Case, F, Q, Value, When
from django.utils import timezone

from devices.links.lorawan.chirpstack import ChirpStack, ChirpStackError, NotAllowed, QueueItem, Unreachable
from devices.links.lorawan.models import CommandExchange, FragmentSession, LoRaWanDevice
from devices.links.lorawan.visit import Frame, Visit
from devices.services import add_bytes_sent, append_events
from fleet.clock import fleet_time

log = structlog.get_logger(__name__)

# A visit costs some 20 ms; a batch is what a run may be late by.
BATCH = 10
LEASE = timedelta(seconds=30)
# Without any event the queue is looked at again: events are posted once, and may be lost.
LOOK_AGAIN_S = 15 * 60
# Real seconds: servers do not come back faster with simulated time.
RETRY = timedelta(seconds=5)


@dataclass(frozen=True)
class Lease:
    node_id: int
    until: datetime


def feed(*, now: datetime, limit: int = BATCH) -> int:
    """Nodes looked at: call until it returns 0. A server that does not answer is not tried again for its others."""
    leases = _lease(now=now, limit=limit)
    devices = LoRaWanDevice.objects.select_related("server", "node").in_bulk([lease.node_id for lease in leases])
    clients: dict[int, ChirpStack] = {}
    down: set[int] = set()
    for lease in leases:
        device = devices.get(lease.node_id)
        if device is None:
            continue
        if device.server_id in down:
            _release(lease, due_at=now + RETRY)
            continue
        try:
            client = clients.setdefault(device.server_id, ChirpStack(device.server))
            has_work = _look_at(device, lease, client)
        except (Unreachable, NotAllowed) as error:
            log.warning("chirpstack.down", server=device.server.name, reason=str(error))
            down.add(device.server_id)
            _release(lease, due_at=now + RETRY)
        except ChirpStackError as error:
            log.warning("chirpstack.refused", server=device.server.name, node=device.pk, reason=str(error))
            _release(lease, due_at=now + max(fleet_time(LOOK_AGAIN_S), RETRY))
        else:
            _release(lease, due_at=now + fleet_time(LOOK_AGAIN_S) if has_work else None)
    return len(leases)


def _lease(*, now: datetime, limit: int) -> list[Lease]:
    until = timezone.now() + LEASE
    free = Q(leased_until=None) | Q(leased_until__lte=now)
    with transaction.atomic():
        ids = list(
            LoRaWanDevice.objects.filter(free, due_at__lte=now)
            # A queue that must be emptied comes first: whoever cancelled waits for it.
            .order_by(F("flush_due_at").asc(nulls_last=True), "due_at")
            .select_for_update(skip_locked=True, of=("self",))
            .values_list("pk", flat=True)[:limit]
        )
        LoRaWanDevice.objects.filter(pk__in=ids).update(leased_until=until, due_at=until)
    return [Lease(pk, until) for pk in ids]


def _release(lease: Lease, *, due_at: datetime | None) -> None:
    """What came due in the meantime stays due."""
    LoRaWanDevice.objects.filter(pk=lease.node_id, leased_until=lease.until).update(
        leased_until=None, due_at=Case(When(due_at=lease.until, then=Value(due_at)), default=F("due_at"))
    )


def _look_at(device: LoRaWanDevice, lease: Lease, client: ChirpStack) -> bool:
    """Whether there is more to do for it. Raises ChirpStackError."""
    dev_eui = device.node.endpoint
    if device.flush_due_at is not None:
        client.flush(dev_eui)
        LoRaWanDevice.objects.filter(pk=device.pk, flush_due_at=device.flush_due_at).update(flush_due_at=None)
    queue = client.queue(dev_eui)
    visit = _decide(lease, queue)
    if visit is None:
        return True
    has_work, frames = visit
    items: list[str] = []
    try:
        for frame in frames:
            items.append(client.enqueue(dev_eui, port=frame.port, data=frame.data, confirmed=frame.confirmed))
    finally:
        if frames:
            _settle(device.pk, frames, items)
    return has_work


def _decide(lease: Lease, queue: Sequence[QueueItem]) -> tuple[bool, list[Frame]] | None:
    now = timezone.now()
    with transaction.atomic():
        device = LoRaWanDevice.objects.select_for_update(of=("self",)).get(pk=lease.node_id)
        if device.leased_until != lease.until:
            return None  # the lease ended while ChirpStack was slow, and another worker is at it
        visit = Visit(device, queue, now)
        has_work = visit.work()
        device.save()
        append_events(visit.events)
    return has_work or device.flush_due_at is not None, visit.frames


def _settle(node_id: int, frames: Sequence[Frame], items: Sequence[str]) -> None:
    """Counts what left; `items`: the ids of the first frames in the queue.

    Fragments after the frame that failed were not tried: their numbers are free again.
    """
    sent, untried = frames[: len(items)], [frame for frame in frames[len(items) + 1 :] if frame.number]
    of_deliveries = [frame for frame in sent if frame.delivery_id is not None]
    with transaction.atomic():
        # As everywhere: the device's row first, then what belongs to it.
        LoRaWanDevice.objects.select_for_update(of=("self",)).filter(pk=node_id).first()
        for delivery_id in {frame.delivery_id for frame in of_deliveries if frame.delivery_id is not None}:
            own = [frame for frame in of_deliveries if frame.delivery_id == delivery_id]
            add_bytes_sent(counts={delivery_id: sum(len(frame.data) for frame in own)})
            FragmentSession.objects.filter(pk=delivery_id).update(frames_sent=F("frames_sent") + len(own))
        for frame, item in zip(sent, items, strict=True):
            if frame.confirmed:
                CommandExchange.objects.filter(pk=frame.delivery_id).update(queue_item_id=item)
        if untried:
            FragmentSession.objects.filter(pk=untried[0].delivery_id, next_number=untried[-1].number + 1).update(
                next_number=untried[0].number
            )
