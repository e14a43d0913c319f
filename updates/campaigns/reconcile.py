"""Proves that what is counted is what is there. Each finding is a sentence; none means that the books are right."""

from __future__ import annotations

from django.db import connection

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
        JOIN LATERAL (SELECT to_state FROM updates_updateevent e WHERE e.node_update_id = n.id
            AND e.campaign_id = n.campaign_id ORDER BY e.id DESC LIMIT 1) e ON true
        WHERE e.to_state <> n.state ORDER BY 1
    """,
    "Node update {0} is {1} and no event says how it came there.": """
        SELECT n.id, n.state FROM updates_nodeupdate n
        WHERE n.state NOT IN ('planned', 'skipped') AND NOT EXISTS (SELECT 1 FROM updates_updateevent e
            WHERE e.node_update_id = n.id AND e.campaign_id = n.campaign_id) ORDER BY 1
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


def reconcile() -> list[str]:
    """Every finding, worst kinds first. Reads whole tables: for a command or a nightly task, never for a page."""
    findings = []
    with connection.cursor() as cursor:
        for sentence, sql in CHECKS.items():
            cursor.execute(sql)
            findings += [sentence.format(*row) for row in cursor.fetchall()]
    return findings
