"""How a delivery ends or begins anew, and what is written then. Call with the device's row locked."""

from __future__ import annotations

from datetime import datetime

import structlog

from devices.links.lorawan.models import FragmentSession, LoRaWanDevice, SessionStage
from devices.models import OPEN_DELIVERY, Delivery, DeliveryState, LinkEvent, LinkEventKind, LinkKind

log = structlog.get_logger(__name__)

# A node that resets again and again, or whose decoder gives up each time, will not take this bundle.
RESTARTS_MAX = 12


def node_event(kind: LinkEventKind, node_id: int, *, at: datetime, **fields: object) -> LinkEvent:
    return LinkEvent(kind=kind, link=LinkKind.LORAWAN, node_id=node_id, at=at, **fields)


def delivery_event(kind: LinkEventKind, delivery: Delivery, *, at: datetime, **fields: object) -> LinkEvent:
    return node_event(kind, delivery.node_id, at=at, delivery_id=delivery.pk, reference=delivery.reference, **fields)


def close(
    device: LoRaWanDevice, delivery: Delivery, kind: LinkEventKind, *, at: datetime, cause: str = "", digest: str = ""
) -> list[LinkEvent]:
    """Delivered or failed, once: no events where it was closed or cancelled already.

    Frames of it that are still queued are flushed.
    """
    state = DeliveryState.DELIVERED if kind is LinkEventKind.DELIVERED else DeliveryState.FAILED
    changed = Delivery.objects.filter(pk=delivery.pk, state__in=OPEN_DELIVERY).update(state=state, updated_at=at)
    if not changed:
        return []
    delivery.state = state
    device.flush_due_at = device.due_at = at
    log.info(f"lorawan.{state.value}", node=delivery.node_id, delivery=delivery.pk, cause=cause)
    return [delivery_event(kind, delivery, at=at, cause=cause, digest=digest)]


def restart(device: LoRaWanDevice, session: FragmentSession, *, at: datetime, reason: str) -> list[LinkEvent]:
    """Back to the base, for the node may hold another one by now; its queue holds nothing that fits any more."""
    if session.stage == SessionStage.BASE:
        return []
    session.restarts += 1
    log.info("lorawan.session-restarted", node=device.node_id, reason=reason, restarts=session.restarts)
    if session.restarts > RESTARTS_MAX:
        return close(device, session.delivery, LinkEventKind.FAILED, at=at, cause="session-lost")
    session.stage = SessionStage.BASE
    session.fragment_bytes = session.fragments = session.last_number = session.told_number = 0
    session.next_number = 1
    session.asked_uplink = session.missing = session.report_before = None
    session.attempts = session.rounds = session.received = 0
    session.setup_answer = ""
    device.flush_due_at = device.due_at = at
    return []
