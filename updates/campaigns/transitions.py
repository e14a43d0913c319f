"""The only place that changes the state of a node update: compare-and-swap, event and tally in one transaction."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from django.db import OperationalError, connection, transaction
from django.db.models import Sum
from psycopg.errors import LockNotAvailable

from updates.campaigns import deadlines
from updates.models import Tally
from updates.states import NODE_UPDATE, OPEN_STATES, Actor, NodeUpdateState

_MOVE = f"""
WITH old AS (
    SELECT id, state, wave_id FROM updates_nodeupdate n
    WHERE id = ANY(%(ids)s) AND state = ANY(%(sources)s)
      AND (NOT %(opens)s OR NOT EXISTS (
        SELECT 1 FROM updates_nodeupdate other
        WHERE other.node_id = n.node_id AND other.id <> n.id AND other.state = ANY(%(open)s)))
    ORDER BY id FOR UPDATE
), moved AS (
    UPDATE updates_nodeupdate n SET state = %(state)s, cause = %(cause)s, changed_at = %(now)s,
        due_at = CASE WHEN %(keep_deadline)s THEN n.due_at WHEN %(timeout_s)s::float8 IS NULL THEN NULL
            ELSE {deadlines.DEADLINE} END
    FROM old WHERE n.id = old.id
    RETURNING n.id, n.campaign_id, n.node_id, n.wave_id, old.state AS from_state
), event AS (
    INSERT INTO updates_updateevent (at, campaign_id, node_id, node_update_id, from_state, to_state, cause)
    SELECT %(now)s, campaign_id, node_id, id, from_state, %(state)s, %(cause)s FROM moved
)
SELECT id, wave_id, from_state FROM moved
"""  # noqa: S608 - our own text

_COUNT = """
WITH locked AS (SELECT id FROM updates_tally WHERE wave_id = ANY(%(waves)s) ORDER BY id FOR UPDATE)
UPDATE updates_tally t SET count = t.count + d.change
FROM (SELECT * FROM unnest(%(wave_ids)s::bigint[], %(states)s::text[], %(changes)s::int[]) AS d(wave_id, state, change)) d
WHERE t.wave_id = d.wave_id AND t.state = d.state AND t.id IN (SELECT id FROM locked)
"""


# First half of the two-part advisory key, so that no other use of advisory locks meets ours.
LOCK_SPACE = 0x6D66
# Held by the tick that works on a campaign or waits for its lock: of two ticks the second leaves.
TICK_SPACE = 0x6D67
TICK_WAIT_S = 5.0


def lock(campaign_ids: Sequence[int], *, wait: bool) -> bool:
    """The campaigns' advisory locks until the transaction ends, in one order everywhere. False where one is taken."""
    with connection.cursor() as cursor:
        for campaign_id in sorted(campaign_ids):
            if wait:
                cursor.execute("SELECT pg_advisory_xact_lock(%s, %s)", [LOCK_SPACE, campaign_id])
            else:
                cursor.execute("SELECT pg_try_advisory_xact_lock(%s, %s)", [LOCK_SPACE, campaign_id])
                if not cursor.fetchone()[0]:
                    return False
    return True


def lock_for_tick(campaign_id: int, *, within_s: float = TICK_WAIT_S) -> bool:
    """The campaign's lock for a tick. False where another tick is at work, or the lock does not come in time.

    PostgreSQL hands an advisory lock to those who wait for it in the order in which they came, so a tick that waits gets
    its turn after the batch that is drained now, however fast the next follows. A try would find the lock taken nearly
    always under steady ingest.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_xact_lock(%s, %s)", [TICK_SPACE, campaign_id])
        if not cursor.fetchone()[0]:
            return False
        try:
            with transaction.atomic():
                cursor.execute("SELECT set_config('lock_timeout', %s, true)", [f"{round(1000 * within_s)}ms"])
                cursor.execute("SELECT pg_advisory_xact_lock(%s, %s)", [LOCK_SPACE, campaign_id])
        except OperationalError as error:
            if isinstance(error.__cause__, LockNotAvailable):
                return False
            raise
        cursor.execute("SELECT set_config('lock_timeout', '0', true)")
    return True


@dataclass(frozen=True)
class Moved:
    node_update_id: int
    wave_id: int
    from_state: str


def move(
    ids: Sequence[int],
    to_state: NodeUpdateState,
    *,
    now: datetime,
    by: Actor,
    cause: str = "",
    timeout_s: float | None = None,
    keep_deadline: bool = False,
    sources: Sequence[str] | None = None,
) -> list[Moved]:
    """Moves those of `ids` that stand in a state from which `to_state` may be reached; the others stay, silently.

    `timeout_s`: fleet seconds until silence counts, see `deadlines`. A node that has another open update stays too. Call
    within a transaction. Raises ValueError where the state machine lets `by` not go to `to_state` for this cause.
    """
    allowed = NODE_UPDATE.sources(to_state, by=by, cause=cause)
    if sources is not None:
        allowed = [state for state in allowed if state in sources]
    if not ids:
        return []
    with connection.cursor() as cursor:
        cursor.execute(
            _MOVE,
            deadlines.arguments(now=now, timeout_s=timeout_s)
            | {
                "ids": list(ids),
                "sources": [str(state) for state in allowed],
                "opens": to_state in OPEN_STATES,
                "open": [str(state) for state in OPEN_STATES],
                "state": str(to_state),
                "cause": cause,
                "keep_deadline": keep_deadline,
            },
        )
        moved = [Moved(*row) for row in cursor.fetchall()]
    changes: Counter[tuple[int, str]] = Counter()
    for item in moved:
        changes[item.wave_id, item.from_state] -= 1
        changes[item.wave_id, str(to_state)] += 1
    count(changes)
    return moved


def count(changes: Mapping[tuple[int, str], int]) -> None:
    """Adds to the tallies of (wave id, state), in one statement, rows locked in key order."""
    if not changes:
        return
    keys = sorted(changes)
    with connection.cursor() as cursor:
        cursor.execute(
            _COUNT,
            {
                "waves": sorted({wave_id for wave_id, _ in keys}),
                "wave_ids": [wave_id for wave_id, _ in keys],
                "states": [state for _, state in keys],
                "changes": [changes[key] for key in keys],
            },
        )


def sum_tallies(wave_ids: list[int]) -> dict[str, int]:
    """Node updates by state over these waves, states without any left out."""
    sums = Tally.objects.filter(wave__in=wave_ids).values_list("state").annotate(total=Sum("count"))
    return {state: total for state, total in sums if total}


def tallies_of(wave_ids: list[int]) -> dict[int, dict[str, int]]:
    """Node updates by wave and state."""
    tallies: dict[int, dict[str, int]] = {wave_id: {} for wave_id in wave_ids}
    for wave_id, state, number in Tally.objects.filter(wave__in=wave_ids).values_list("wave_id", "state", "count"):
        tallies[wave_id][state] = number
    return tallies
