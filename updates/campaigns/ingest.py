"""Turns what links saw into what is known: holdings of nodes first, then states, in one transaction a batch.

Reports come late, twice and out of order. They never break a state, and they always update what a node is known to
hold. Rows are leased by FOR UPDATE SKIP LOCKED, so that two workers never drain one row, and marked drained in the
transaction that acts on them, so that a kill at any statement leaves them to be drained again.

A batch is worked off in rounds: the first event of each node, then the second of each, and so on. That keeps each
node's order and lets every round read and write in a few statements, however many nodes it speaks of.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime

import structlog
from django.db import connection, transaction

from devices import services as devices
from devices.health import record_part
from devices.links import LINKS, link_for
from devices.models import LinkEvent, LinkEventKind, Node
from devices.wire import NodeState, StateReport, WireError, decode_state, is_health_part
from fleet.operations.services import count
from updates.campaigns import deadlines
from updates.campaigns.judgement import Step, judge
from updates.campaigns.retries import count_attempts
from updates.campaigns.transitions import lock, move
from updates.models import Method, NodeUpdate
from updates.states import FAULTS, OPEN_STATES, TERMINAL_STATES, NodeUpdateState

# Bounded, since a batch holds the locks of its campaigns, and a tick or a halt waits for them: measured with two workers
# at 2,000 events/s, 1.6 s with 1000 and 0.3 s with 400, at the same rate.
BATCH = 400
log = structlog.get_logger(__name__)

_PROGRESS = """
UPDATE updates_nodeupdate n SET received_bytes = GREATEST(n.received_bytes, p.received), total_bytes = p.total
FROM unnest(%s::bigint[], %s::int[], %s::int[]) AS p(id, received, total)
WHERE n.id = p.id AND n.state <> 'planned'
"""


def drain(*, now: datetime, limit: int = BATCH) -> int:
    """Events drained: call until it returns 0."""
    with transaction.atomic():
        nodes = set(LinkEvent.objects.filter(drained_at=None).order_by("id").values_list("node_id", flat=True)[:limit])
        # Lock order everywhere: campaigns, then node updates, then tallies.
        lock(_campaigns_of(nodes), wait=True)
        events = list(
            LinkEvent.objects.select_for_update(skip_locked=True)
            .filter(drained_at=None, node_id__in=nodes)
            .order_by("id")[:limit]
        )
        for part in _rounds(events):
            _apply(part, now)
        if events:
            times = [event.at for event in events]
            # The range on `at` lets PostgreSQL touch only the partitions that hold these rows.
            LinkEvent.objects.filter(
                pk__in=[event.pk for event in events], at__gte=min(times), at__lte=max(times)
            ).update(drained_at=now)
            # Last of all locks, and for an instant: every worker that drains counts here.
            count("link_events", Counter((event.link, event.kind) for event in events))
    return len(events)


def _campaigns_of(nodes: Iterable[int]) -> list[int]:
    updates = NodeUpdate.objects.filter(node__in=nodes, state__in=[*OPEN_STATES, NodeUpdateState.SILENT])
    return list(updates.values_list("campaign_id", flat=True).distinct())


def _rounds(events: list[LinkEvent]) -> Iterator[list[LinkEvent]]:
    """Lists in which each node stands once at most, its events in order from list to list."""
    rounds: defaultdict[int, list[LinkEvent]] = defaultdict(list)
    seen: defaultdict[int, int] = defaultdict(int)
    for event in events:
        rounds[seen[event.node_id]].append(event)
        seen[event.node_id] += 1
    yield from (rounds[index] for index in sorted(rounds))


def _apply(events: list[LinkEvent], now: datetime) -> None:
    held = dict(Node.objects.filter(pk__in={event.node_id for event in events}).values_list("pk", "active_digest"))
    # A node may have been deleted while its events waited; they say nothing any more.
    events = [event for event in events if event.node_id in held]
    reports = {event.pk: report for event in events if (report := _state_report(event)) is not None}
    devices.record_holdings(holdings=[item for event in events if (item := _holding(event, reports.get(event.pk)))])
    speaking_of = _updates_of(events)
    held = dict(Node.objects.filter(pk__in=held).values_list("pk", "active_digest"))
    steps: defaultdict[Step, list[int]] = defaultdict(list)
    for event in events:
        update = speaking_of.get(event.pk)
        if update is None:
            continue
        step = judge(event=event, report=reports.get(event.pk), update=update, held=held.get(event.node_id, ""))
        if step is not None:
            steps[step].append(update.pk)
        elif event.kind == LinkEventKind.FAILED:
            _patch_instead(update, now)
    for step, ids in steps.items():
        moved = move(
            ids,
            step.to_state,
            now=now,
            by=step.by,
            cause=step.cause,
            timeout_s=step.timeout_s,
            sources=step.sources,
        )
        ended = [item.node_update_id for item in moved]
        if step.to_state in TERMINAL_STATES or step.to_state == NodeUpdateState.PLANNED:
            _close_deliveries(ended, now)
        if step.to_state in FAULTS or step.to_state == NodeUpdateState.PLANNED:
            count_attempts(ended, now=now)
    _note_progress(events, speaking_of, now)


def _close_deliveries(ids: list[int], now: datetime) -> None:
    """An update that has ended must not be offered again by its link, nor stand before the next one's bundle."""
    for kind in LINKS:
        link_for(kind).cancel(references=ids, now=now)


def _state_report(event: LinkEvent) -> StateReport | None:
    if event.kind != LinkEventKind.REPORT:
        return None
    data = bytes(event.payload or b"")
    try:
        if not is_health_part(data):
            return decode_state(data)
        record_part(node_id=event.node_id, at=event.at)
    except WireError as error:
        log.warning("report.unreadable", node=event.node_id, event_id=event.pk, error=str(error))
    return None


def _holding(event: LinkEvent, report: StateReport | None) -> devices.Holding | None:
    if event.kind == LinkEventKind.HOLDS:
        return devices.Holding(node_id=event.node_id, active_digest=event.digest)
    if report is None:
        return None
    # A success is claimed; the link has just read the whole digest, which says more than the claim.
    read_instead = report.state == NodeState.CONFIRMED
    active = report.active_prefix.hex() if any(report.active_prefix) else ""
    standby = report.standby_prefix.hex() if any(report.standby_prefix) else ""
    return devices.Holding(
        node_id=event.node_id, active_digest=None if read_instead else active, standby_digest=standby
    )


def _updates_of(events: list[LinkEvent]) -> Mapping[int, NodeUpdate]:
    """The node update that each event is about, by event.

    An event of a delivery names it. What a node says by itself is about its open update, else its newest silent one.
    """
    updates = NodeUpdate.objects.select_related("campaign", "image", "node")
    by_reference = updates.in_bulk({event.reference for event in events if event.reference is not None})
    by_node: dict[int, NodeUpdate] = {}
    speaking = [event.node_id for event in events if event.reference is None]
    for update in updates.filter(node__in=speaking, state__in=[*OPEN_STATES, NodeUpdateState.SILENT]).order_by("pk"):
        known = by_node.get(update.node_id)
        if known is None or known.state == NodeUpdateState.SILENT or update.state != NodeUpdateState.SILENT:
            by_node[update.node_id] = update
    found = {
        event.pk: by_node.get(event.node_id) if event.reference is None else by_reference.get(event.reference)
        for event in events
    }
    return {pk: update for pk, update in found.items() if update is not None}


def _patch_instead(update: NodeUpdate, now: datetime) -> None:
    """The node cannot go back by itself: the next tick offers it the reverse patch, or the full previous image."""
    if update.method != Method.COMMAND or update.state not in OPEN_STATES:
        return
    NodeUpdate.objects.filter(pk=update.pk).update(method=Method.PATCH)
    deadlines.renew([update.pk], states=OPEN_STATES, timeout_s=update.campaign.offer_timeout_s, now=now)


def _note_progress(events: list[LinkEvent], updates: Mapping[int, NodeUpdate], now: datetime) -> None:
    heard = [event for event in events if event.kind == LinkEventKind.PROGRESS and event.pk in updates]
    rows = sorted({(updates[one.pk].pk, one.received_bytes or 0, one.total_bytes or 0) for one in heard})
    if not rows:
        return
    with connection.cursor() as cursor:
        cursor.execute(_PROGRESS, [list(column) for column in zip(*rows, strict=True)])
    by_timeout: defaultdict[int, list[int]] = defaultdict(list)
    for one in heard:
        by_timeout[updates[one.pk].campaign.progress_timeout_s].append(updates[one.pk].pk)
    for timeout_s, ids in by_timeout.items():
        deadlines.renew(ids, states=[NodeUpdateState.TRANSFERRING], timeout_s=timeout_s, now=now)
