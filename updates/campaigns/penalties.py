"""The penalty box: nodes that keep failing are left out of updates until time or a person lets them out.

A node is in it while it has had MAXIMUM_FAULTS faults within DAYS, in as many campaigns: a node stands in a campaign once.
Faults in campaigns that were halted or aborted are the version's and do not count. Nothing is stored but who was released:
a fault that grows old leaves the count by itself. Rollbacks take nodes whatever they did.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import connection, transaction

from devices.models import Node
from fleet.audit.models import record
from updates.models import PenaltyRelease
from updates.states import FAULTS

_BOXED = """
SELECT n.node_id, count(*) FROM updates_nodeupdate n
JOIN updates_campaign c ON c.id = n.campaign_id
LEFT JOIN updates_penaltyrelease r ON r.node_id = n.node_id
WHERE n.state IN ('failed', 'rejected', 'reverted') AND n.changed_at > %(since)s
    AND (r.at IS NULL OR n.changed_at > r.at) AND c.state NOT IN ('halted', 'aborted')
    AND (%(nodes)s::bigint[] IS NULL OR n.node_id = ANY(%(nodes)s))
GROUP BY n.node_id HAVING count(*) >= %(most)s
"""
if {str(state) for state in FAULTS} != {"failed", "rejected", "reverted"}:
    raise RuntimeError("the statement above and updates.states.FAULTS name different states")


def boxed(*, now: datetime, node_ids: Iterable[int] | None = None) -> dict[int, int]:
    """How often each node in the box has failed, by node id; of all nodes, or of these."""
    values: dict[str, Any] = {
        "since": now - timedelta(days=settings.PENALTY_DAYS),
        "most": settings.PENALTY_FAULTS,
        "nodes": None if node_ids is None else list(node_ids),
    }
    with connection.cursor() as cursor:
        cursor.execute(_BOXED, values)
        return dict(cursor.fetchall())


def reason() -> str:
    return (
        f"These nodes failed {settings.PENALTY_FAULTS} times or more within {settings.PENALTY_DAYS} days: "
        "look at them, then release them or wait."
    )


@transaction.atomic
def release(*, node: Node, actor: str, now: datetime) -> bool:
    """Lets a node out; False where it was not in."""
    faults = boxed(now=now, node_ids=[node.pk]).get(node.pk)
    if faults is None:
        return False
    PenaltyRelease.objects.update_or_create(node=node, defaults={"at": now, "by": actor})
    record(actor=actor, action="node.released", subject=node, before={"faults": faults}, after={"faults": 0})
    return True
