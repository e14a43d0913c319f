"""Turns what links saw into what is known: holdings of nodes first, then states, in one transaction a batch.

Reports come late, twice and out of order. They never break a state, and they always update what a node is known to
hold. Events are taken by `devices.services.take_events`: two workers never drain one row nor one node, and a kill at any
statement leaves the rows to be drained again.

A batch is worked off in rounds: the first event of each node, then the second of each, and so on. That keeps each
node's order and lets every round read and write in a few statements, however many nodes it speaks of.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime

import structlog
from django.db import connection, transaction

from devices import services as devices
from devices.health import record_parts
from devices.links import link_for
from devices.models import LinkEventKind
from devices.services import Heard, Sighting
from devices.wire import NodeState, StateReport, WireError, decode_state, is_health_part
from fleet.operations.services import count
from updates.campaigns import deadlines
from updates.campaigns.judgement import Standing, Step, judge
from updates.campaigns.retries import count_attempts
from updates.campaigns.transitions import lock, move
from updates.models import Method, NodeUpdate
from updates.states import FAULTS, OPEN_STATES, TERMINAL_STATES, NodeUpdateState

# Bounded, since a batch holds the locks of its campaigns, and a tick or a halt waits for them: about 0.2 s.
BATCH = 1000
log = structlog.get_logger(__name__)

_STANDING = """
SELECT n.id, n.node_id, o.link, n.state, n.cause, n.method, n.attempts, n.received_bytes, n.not_before,
    coalesce(i.digest, ''), o.active_digest,
    c.state, c.sequence, c.maximum_attempts, c.offer_timeout_s, c.progress_timeout_s
FROM ({which}) AS w (id) JOIN updates_nodeupdate n ON n.id = w.id JOIN updates_campaign c ON c.id = n.campaign_id
JOIN devices_node o ON o.id = n.node_id LEFT JOIN updates_modelimage i ON i.id = n.image_id
"""
_REFERRED = _STANDING.format(which="SELECT unnest(%s::bigint[])")
# Two parts, each with a partial index of its own: a node may have had hundreds of updates that ended.
_OF_NODES = """
SELECT {column} FROM updates_nodeupdate WHERE node_id = ANY(%(nodes)s)
    AND state IN ('offered', 'transferring', 'staged', 'trial')
UNION ALL SELECT {column} FROM updates_nodeupdate WHERE node_id = ANY(%(nodes)s) AND state = 'silent'
"""
_SPOKEN_OF = _STANDING.format(which=_OF_NODES.format(column="id")) + "ORDER BY n.id"
_CAMPAIGNS = (
    _OF_NODES.format(column="campaign_id").replace("UNION ALL", "UNION").replace("SELECT", "SELECT DISTINCT", 1)
)
if {str(state) for state in OPEN_STATES} != {"offered", "transferring", "staged", "trial"}:
    raise RuntimeError("the statements above and updates.states.OPEN_STATES name different states")

# Only more than before is progress: a node that begins again and again, or whose link says the same again, stands still. 0
# says that a session was set up anew, which links do a few times at most before they give up.
_PROGRESS = f"""
UPDATE updates_nodeupdate n SET total_bytes = p.total,
    received_bytes = CASE WHEN p.received = 0 THEN 0 ELSE GREATEST(n.received_bytes, p.received) END,
    due_at = CASE WHEN n.state = 'transferring' AND (p.received > n.received_bytes OR p.received = 0)
        THEN {deadlines.DEADLINE} ELSE n.due_at END
FROM unnest(%(ids)s::bigint[], %(received)s::int[], %(total)s::int[]) AS p(id, received, total)
WHERE n.id = p.id AND n.state <> 'planned'
"""  # noqa: S608 - our own text


def drain(*, now: datetime, limit: int = BATCH) -> int:
    """Events drained: call until it returns 0."""
    with transaction.atomic():
        events = devices.take_events(now=now, limit=limit)
        if events:
            # What a node said by itself is a sign of life; a link of ours has told it already, other networks have not.
            said = [one for one in events if one.kind in (LinkEventKind.REPORT, LinkEventKind.HOLDS)]
            devices.record_presence(sightings=[Sighting(node_id=one.node_id, seen_at=one.at) for one in said])
            # Lock order everywhere: campaigns, then node updates, then tallies. Nobody who holds one waits for events.
            lock(_campaigns_of(events), wait=True)
            for part in _rounds(events):
                _apply(part, now)
            # Last of all locks, and for an instant: every worker that drains counts here.
            count("link_events", Counter((event.link, event.kind) for event in events))
    return len(events)


def _campaigns_of(events: Sequence[Heard]) -> list[int]:
    with connection.cursor() as cursor:
        cursor.execute(_CAMPAIGNS, {"nodes": list({event.node_id for event in events})})
        return [row[0] for row in cursor.fetchall()]


def _rounds(events: list[Heard]) -> Iterator[list[Heard]]:
    """Lists in which each node stands once at most, its events in order from list to list."""
    rounds: defaultdict[int, list[Heard]] = defaultdict(list)
    seen: defaultdict[int, int] = defaultdict(int)
    for event in events:
        rounds[seen[event.node_id]].append(event)
        seen[event.node_id] += 1
    yield from (rounds[index] for index in sorted(rounds))


def _apply(events: list[Heard], now: datetime) -> None:
    reports = {event.id: report for event in events if (report := _state_report(event)) is not None}
    record_parts(came={event.node_id: event.at for event in events if _is_part(event)})
    devices.record_holdings(holdings=[item for event in events if (item := _holding(event, reports.get(event.id)))])
    speaking_of = _updates_of(events)
    steps: defaultdict[Step, list[Standing]] = defaultdict(list)
    instead = []
    for event in events:
        # None too where the node was deleted while its events waited; they say nothing any more.
        update = speaking_of.get(event.id)
        if update is None:
            continue
        step = judge(event=event, report=reports.get(event.id), update=update)
        if step is not None:
            steps[step].append(update)
        elif event.kind == LinkEventKind.FAILED:
            instead.append(update)
    for update in instead:
        _patch_instead(update, now)
    for step, updates in steps.items():
        moved = move(
            [update.pk for update in updates],
            step.to_state,
            now=now,
            by=step.by,
            cause=step.cause,
            timeout_s=step.timeout_s,
            sources=step.sources,
        )
        ended = {item.node_update_id for item in moved}
        if step.to_state in TERMINAL_STATES or step.to_state == NodeUpdateState.PLANNED:
            _close_deliveries([update for update in updates if update.pk in ended], now)
        if step.to_state in FAULTS or step.to_state == NodeUpdateState.PLANNED:
            count_attempts(sorted(ended), now=now)
    _note_progress(events, speaking_of, now)


def _close_deliveries(updates: Sequence[Standing], now: datetime) -> None:
    """An update that has ended must not be offered again by its link, nor stand before the next one's bundle."""
    by_link: defaultdict[str, list[int]] = defaultdict(list)
    for update in updates:
        by_link[update.link].append(update.pk)
    for kind, ids in sorted(by_link.items()):
        link_for(kind).cancel(references=ids, now=now)


def _is_part(event: Heard) -> bool:
    return event.kind == LinkEventKind.REPORT and is_health_part(bytes(event.payload or b""))


def _state_report(event: Heard) -> StateReport | None:
    if event.kind != LinkEventKind.REPORT or _is_part(event):
        return None
    try:
        return decode_state(bytes(event.payload or b""))
    except WireError as error:
        log.warning("report.unreadable", node=event.node_id, event_id=event.id, error=str(error))
    return None


def _holding(event: Heard, report: StateReport | None) -> devices.Holding | None:
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


def _updates_of(events: Sequence[Heard]) -> Mapping[int, Standing]:
    """The node update that each event is about, by event.

    An event of a delivery names it. What a node says by itself is about its open update, else its newest silent one.
    """
    referred = list({event.reference for event in events if event.reference is not None})
    speaking = list({event.node_id for event in events if event.reference is None})
    by_node: dict[int, Standing] = {}
    with connection.cursor() as cursor:
        cursor.execute(_REFERRED, [referred])
        by_reference = {row[0]: Standing(*row) for row in cursor.fetchall()} if referred else {}
        cursor.execute(_SPOKEN_OF, {"nodes": speaking})
        for row in cursor.fetchall() if speaking else []:
            update = Standing(*row)
            known = by_node.get(update.node_id)
            if known is None or known.state == NodeUpdateState.SILENT or update.state != NodeUpdateState.SILENT:
                by_node[update.node_id] = update
    found = {
        event.id: by_node.get(event.node_id) if event.reference is None else by_reference.get(event.reference)
        for event in events
    }
    return {pk: update for pk, update in found.items() if update is not None}


def _patch_instead(update: Standing, now: datetime) -> None:
    """The node cannot go back by itself: the next tick offers it the reverse patch, or the full previous image."""
    if update.method != Method.COMMAND or update.state not in OPEN_STATES:
        return
    NodeUpdate.objects.filter(pk=update.pk).update(method=Method.PATCH)
    deadlines.renew([update.pk], states=OPEN_STATES, timeout_s=update.offer_timeout_s, now=now)


def _note_progress(events: Sequence[Heard], updates: Mapping[int, Standing], now: datetime) -> None:
    """Bytes received, and the progress timer anew; a statement for each timer that campaigns have."""
    by_timeout: defaultdict[int, list[tuple[int, int, int]]] = defaultdict(list)
    for one in events:
        if one.kind == LinkEventKind.PROGRESS and (update := updates.get(one.id)) is not None:
            row = (update.pk, one.received_bytes or 0, one.total_bytes or 0)
            by_timeout[update.progress_timeout_s].append(row)
    for timeout_s, rows in sorted(by_timeout.items()):
        ids, received, total = (list(column) for column in zip(*sorted(rows), strict=True))
        values = {"ids": ids, "received": received, "total": total}
        with connection.cursor() as cursor:
            cursor.execute(_PROGRESS, deadlines.arguments(now=now, timeout_s=timeout_s) | values)
