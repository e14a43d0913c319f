"""Proves that what is counted is what is there. Each finding is a sentence; none means that the books are right."""

from __future__ import annotations

import time
from datetime import datetime

import structlog
from django.db import connection

from updates.models import ReconcileRun

log = structlog.get_logger(__name__)
CHECKS = {
    "Wave {0} counts {2} node updates as {1}, there are {3}.": """
        SELECT t.wave_id, t.state, t.count, coalesce(n.rows, 0)
        FROM updates_tally t
        LEFT JOIN (SELECT wave_id, state, count(*) AS rows FROM updates_nodeupdate GROUP BY 1, 2) n
            USING (wave_id, state)
        WHERE t.count <> coalesce(n.rows, 0) ORDER BY 1, 2
    """,
    "Node {0} has {1} open updates.": """
        SELECT node_id, count(*) FROM updates_nodeupdate
        WHERE state IN ('offered', 'transferring', 'staged', 'trial') GROUP BY 1 HAVING count(*) > 1 ORDER BY 1
    """,
    "Node update {0} is {1}, its last event says {2}.": """
        SELECT n.id, n.state, e.to_state FROM updates_nodeupdate n
        JOIN (SELECT DISTINCT ON (node_update_id) node_update_id, to_state FROM updates_updateevent
            ORDER BY node_update_id, id DESC) e ON e.node_update_id = n.id
        WHERE e.to_state <> n.state ORDER BY 1
    """,
    "Node update {0} is {1} and no event says how it came there.": """
        SELECT n.id, n.state FROM updates_nodeupdate n
        WHERE n.state NOT IN ('planned', 'skipped')
            -- Older events may have been dropped with their month.
            AND n.changed_at >= (SELECT coalesce(min(at), '-infinity') FROM updates_updateevent)
            AND NOT EXISTS (SELECT 1 FROM updates_updateevent e WHERE e.node_update_id = n.id) ORDER BY 1
    """,
    "Event {0} of node update {1} says that it was {2}, the event before left it {3}.": """
        SELECT id, node_update_id, from_state, before FROM (
            SELECT id, node_update_id, from_state,
                lag(to_state) OVER (PARTITION BY node_update_id ORDER BY id) AS before FROM updates_updateevent) e
        WHERE before <> from_state ORDER BY 1
    """,
    "Event {0} is the first of node update {1} and says that it was {2}.": """
        SELECT e.id, e.node_update_id, e.from_state FROM updates_campaign c JOIN (
            SELECT DISTINCT ON (node_update_id) id, node_update_id, campaign_id, from_state FROM updates_updateevent
            ORDER BY node_update_id, id) e ON e.campaign_id = c.id
        WHERE e.from_state NOT IN ('', 'planned')
            -- Older events may have been dropped with their month.
            AND c.started_at >= (SELECT min(at) FROM updates_updateevent) ORDER BY 1
    """,
    "Campaign {0} is {1}, its last move led to {2}.": """
        SELECT c.id, c.state, m.to_state FROM updates_campaign c JOIN (
            SELECT DISTINCT ON (campaign_id) campaign_id, to_state FROM updates_campaignmove WHERE wave_index IS NULL
            ORDER BY campaign_id, id DESC) m ON m.campaign_id = c.id
        WHERE m.to_state <> c.state ORDER BY 1
    """,
    "Node update {0} is {1}, yet its wave has not opened.": """
        SELECT n.id, n.state FROM updates_nodeupdate n JOIN updates_wave w ON w.id = n.wave_id
        WHERE w.state = 'waiting' AND n.state NOT IN ('planned', 'skipped', 'cancelled') ORDER BY 1
    """,
    "Wave {0} has no tally for {1}.": """
        SELECT DISTINCT n.wave_id, n.state FROM updates_nodeupdate n WHERE NOT EXISTS (
            SELECT 1 FROM updates_tally t WHERE t.wave_id = n.wave_id AND t.state = n.state) ORDER BY 1, 2
    """,
    "Node update {0} is {1} and has no deadline, so it would never fall silent.": """
        SELECT id, state FROM updates_nodeupdate
        WHERE state IN ('offered', 'transferring', 'staged', 'trial') AND due_at IS NULL ORDER BY 1
    """,
    "Node update {0} has ended and its delivery {1} is still {2}.": """
        SELECT n.id, d.id, d.state FROM devices_delivery d JOIN updates_nodeupdate n ON n.id = d.reference
        WHERE d.state IN ('waiting', 'offered', 'transferring')
            AND n.state NOT IN ('offered', 'transferring', 'staged', 'trial') ORDER BY 1
    """,
    "Version {0} is being built and nobody holds a lease.": """
        SELECT id FROM updates_modelversion WHERE state = 'building' AND lease_until IS NULL ORDER BY 1
    """,
    "{0} {1} waits for a worker since its lease ran out at {2}.": """
        SELECT 'Version', id, lease_until FROM updates_modelversion
        WHERE (state = 'building' OR judge_again) AND lease_until < now() - interval '1 hour'
        UNION ALL SELECT 'Patch', id, lease_until FROM updates_patch
        WHERE state = 'waiting' AND lease_until < now() - interval '1 hour' ORDER BY 1, 2
    """,
    "{0} {1} ended as {2} and still holds a lease.": """
        SELECT 'Version', id, state FROM updates_modelversion
        WHERE state IN ('ready', 'refused') AND NOT judge_again AND lease_until IS NOT NULL
        UNION ALL SELECT 'Patch', id, state FROM updates_patch
        WHERE state IN ('ready', 'failed') AND lease_until IS NOT NULL ORDER BY 1, 2
    """,
    "Node update {0} has {1} deliveries under way.": """
        SELECT reference, count(*) FROM devices_delivery
        WHERE state IN ('waiting', 'offered', 'transferring') GROUP BY 1 HAVING count(*) > 1 ORDER BY 1
    """,
    "Campaign {0} is {1}, yet {2} of its node updates are still open.": """
        SELECT c.id, c.state, count(*) FROM updates_campaign c JOIN updates_nodeupdate n ON n.campaign_id = c.id
        WHERE c.state IN ('finished', 'aborted')
            AND n.state IN ('planned', 'offered', 'transferring', 'staged', 'trial') GROUP BY 1, 2 ORDER BY 1
    """,
}


KEPT_RUNS = 100
EXAMPLES = 10


def reconcile() -> list[str]:
    """Every finding, worst kinds first. Reads whole tables: for a command or a nightly task, never for a page. Each check
    is one statement, so what moves meanwhile is seen as a whole or not at all."""
    findings = []
    with connection.cursor() as cursor:
        for sentence, sql in CHECKS.items():
            cursor.execute(sql)
            findings += [sentence.format(*row) for row in cursor.fetchall()]
    return findings


def prove(*, now: datetime) -> ReconcileRun:
    """Reconciles and keeps what came out, for the metric and the status page."""
    began = time.monotonic()
    findings = reconcile()
    took_ms = round(1000 * (time.monotonic() - began))
    run = ReconcileRun.objects.create(at=now, took_ms=took_ms, findings=len(findings), examples=findings[:EXAMPLES])
    kept = ReconcileRun.objects.order_by("-pk").values("pk")[:KEPT_RUNS]
    ReconcileRun.objects.exclude(pk__in=list(kept.values_list("pk", flat=True))).delete()
    for finding in findings[:EXAMPLES]:
        log.error("reconcile.finding", finding=finding)
    return run
