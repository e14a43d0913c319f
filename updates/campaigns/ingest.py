"""Turns what links saw into what is known: holdings of nodes first, then states, in one transaction a batch.

Reports come late, twice and out of order. They never break a state, and they always update what a node is known to
hold. Rows are leased by FOR UPDATE SKIP LOCKED, so that two workers never drain one row, and marked drained in the
transaction that acts on them, so that a kill at any statement leaves them to be drained again.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

import structlog
from django.db import transaction

from devices import services as devices
from devices.health import record_part
from devices.models import LinkEvent, LinkEventKind, LinkKind, Node
from devices.wire import NodeState, StateReport, WireError, decode_state, is_health_part
from fleet.clock import fleet_time
from updates.campaigns.engine import hand_over
from updates.campaigns.transitions import lock, move
from updates.models import Method, NodeUpdate
from updates.states import OPEN_STATES, CampaignState, NodeUpdateState

# Small, since a batch holds the locks of its campaigns, and a halt waits for them.
BATCH = 200
log = structlog.get_logger(__name__)

REPORTED = {
    NodeState.RECEIVING: NodeUpdateState.TRANSFERRING,
    NodeState.STAGED: NodeUpdateState.STAGED,
    NodeState.TRIAL: NodeUpdateState.TRIAL,
    NodeState.REVERTED: NodeUpdateState.REVERTED,
    NodeState.FAILED: NodeUpdateState.FAILED,
    NodeState.REJECTED: NodeUpdateState.REJECTED,
}
# A node repeats its last end in each report. One that has pulled nothing of this offer speaks of an earlier one.
BEGUN = [NodeUpdateState.TRANSFERRING, NodeUpdateState.STAGED, NodeUpdateState.TRIAL, NodeUpdateState.SILENT]


def drain(*, now: datetime, limit: int = BATCH) -> int:
    """Events drained: call until it returns 0."""
    with transaction.atomic():
        nodes = list(LinkEvent.objects.filter(drained_at=None).order_by("id").values_list("node_id", flat=True)[:limit])
        # Lock order everywhere: campaigns, then node updates, then tallies.
        lock(_campaigns_of(nodes), wait=True)
        events = list(
            LinkEvent.objects.select_for_update(skip_locked=True)
            .filter(drained_at=None, node_id__in=set(nodes))
            .order_by("id")[:limit]
        )
        for event in events:
            _apply(event, now)
        if events:
            times = [event.at for event in events]
            # The range on `at` lets PostgreSQL touch only the partitions that hold these rows.
            LinkEvent.objects.filter(
                pk__in=[event.pk for event in events], at__gte=min(times), at__lte=max(times)
            ).update(drained_at=now)
    return len(events)


def _campaigns_of(nodes: Iterable[int]) -> list[int]:
    updates = NodeUpdate.objects.filter(node__in=set(nodes), state__in=[*OPEN_STATES, NodeUpdateState.SILENT])
    return list(updates.values_list("campaign_id", flat=True).distinct())


def _apply(event: LinkEvent, now: datetime) -> None:
    if event.kind == LinkEventKind.HOLDS:
        _holds(event, now)
    elif event.kind == LinkEventKind.REPORT:
        _report(event, now)
    elif (
        update := NodeUpdate.objects.filter(pk=event.reference).select_related("campaign", "image").first()
    ) is not None:
        _delivery(event, update, now)


def _delivery(event: LinkEvent, update: NodeUpdate, now: datetime) -> None:
    due = now + fleet_time(update.campaign.progress_timeout_s)
    if event.kind == LinkEventKind.PROGRESS:
        NodeUpdate.objects.filter(pk=update.pk, received_bytes__lte=event.received_bytes or 0).update(
            received_bytes=event.received_bytes or 0, total_bytes=event.total_bytes or 0
        )
        if not move([update.pk], NodeUpdateState.TRANSFERRING, now=now, due_at=due):
            NodeUpdate.objects.filter(pk=update.pk, state=NodeUpdateState.TRANSFERRING).update(due_at=due)
    elif event.kind == LinkEventKind.DELIVERED:
        move([update.pk], NodeUpdateState.STAGED, now=now, due_at=due)
    elif event.kind == LinkEventKind.FAILED:
        if update.method == Method.COMMAND and update.state in OPEN_STATES:
            _after_refused_command(update, now)
        else:
            move([update.pk], NodeUpdateState.FAILED, now=now, cause=event.cause or "failed")


def _after_refused_command(update: NodeUpdate, now: datetime) -> None:
    """It is back already, or cannot go back by itself and gets the reverse patch, or the full previous image."""
    held = Node.objects.values_list("active_digest", flat=True).get(pk=update.node_id)
    if update.image is not None and held == update.image.digest:
        move([update.pk], NodeUpdateState.CONFIRMED, now=now)
        return
    due = now + fleet_time(update.campaign.offer_timeout_s)
    NodeUpdate.objects.filter(pk=update.pk).update(method=Method.PATCH, due_at=due)
    hand_over(update.campaign, [update.pk], now=now)


def _holds(event: LinkEvent, now: datetime) -> None:
    devices.record_holdings(holdings=[devices.Holding(node_id=event.node_id, active_digest=event.digest)])
    update = _speaking_of(event.node_id)
    if update is not None and update.image is not None and event.digest == update.image.digest:
        move([update.pk], NodeUpdateState.CONFIRMED, now=now)


def _report(event: LinkEvent, now: datetime) -> None:
    data = bytes(event.payload or b"")
    try:
        if is_health_part(data):
            record_part(node_id=event.node_id, at=event.at)
            return
        report = decode_state(data)
    except WireError as error:
        log.warning("report.unreadable", node=event.node_id, event_id=event.pk, error=str(error))
        return
    # A success is claimed; on NB-IoT the gateway has just read the whole digest, which says more than the claim.
    read_instead = event.link == LinkKind.NBIOT and report.state == NodeState.CONFIRMED
    active = report.active_prefix.hex() if any(report.active_prefix) else ""
    standby = report.standby_prefix.hex() if any(report.standby_prefix) else ""
    holding = devices.Holding(
        node_id=event.node_id, active_digest=None if read_instead else active, standby_digest=standby
    )
    devices.record_holdings(holdings=[holding])
    update = _speaking_of(event.node_id)
    if update is not None:
        _judge(update, report, now)


def _speaking_of(node_id: int) -> NodeUpdate | None:
    """The update that a report of this node is about: the open one, else the newest silent one."""
    updates = NodeUpdate.objects.filter(node=node_id, state__in=[*OPEN_STATES, NodeUpdateState.SILENT]).select_related(
        "campaign", "image", "node"
    )
    return min(updates, key=lambda update: (update.state == NodeUpdateState.SILENT, -update.pk), default=None)


def _judge(update: NodeUpdate, report: StateReport, now: datetime) -> None:
    own_sequence = report.sequence_low == update.campaign.sequence & 0xFF
    if update.campaign.state == CampaignState.ABORTED or update.image is None:
        return
    target = update.image.digest
    if update.method == Method.COMMAND:
        # The revert command has no sequence of its own: where the node stands is the proof.
        if report.state == NodeState.REVERTED and report.active_prefix.hex() == target[:8]:
            move([update.pk], NodeUpdateState.CONFIRMED, now=now)
        return
    if report.state == NodeState.CONFIRMED:
        if own_sequence:
            _judge_success(update, report, target, now)
        return
    to_state = REPORTED.get(report.state)
    if to_state is None:
        return
    due = now + fleet_time(update.campaign.progress_timeout_s) if to_state in OPEN_STATES else None
    cause = report.cause.label if to_state not in OPEN_STATES else ""
    if own_sequence or (to_state in (NodeUpdateState.FAILED, NodeUpdateState.REJECTED)):
        sources = None if own_sequence else [str(state) for state in BEGUN]
        move([update.pk], to_state, now=now, cause=cause, due_at=due, sources=sources)


def _judge_success(update: NodeUpdate, report: StateReport, target: str, now: datetime) -> None:
    """Success is what the node runs, not what it says. NB-IoT reads the whole digest before each such report."""
    held = Node.objects.values_list("active_digest", flat=True).get(pk=update.node_id)
    proved = held == target if update.node.link == LinkKind.NBIOT else report.active_prefix.hex() == target[:8]
    if proved:
        move([update.pk], NodeUpdateState.CONFIRMED, now=now)
    else:
        move([update.pk], NodeUpdateState.FAILED, now=now, cause="claims-success")
