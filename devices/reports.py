"""Reports that come from elsewhere than a link of ours: kept as events for a worker, answered at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db import connection

from devices.models import UNPROVED
from devices.wire import claims_success

MAXIMUM_REPORTS = 1000


@dataclass(frozen=True)
class Said:
    """What a node said at a time: a report as in docs/wire-contract.md, the whole digest of what it runs, or both.

    A report of success without the digest decides nothing, as on links of ours: the digest may still be on its way.
    """

    endpoint: str
    at: datetime
    report: bytes | None = None
    holds: str | None = None

    @property
    def cause(self) -> str:
        return UNPROVED if self.holds is None and claims_success(self.report or b"") else ""


# What it runs first: a report of success is judged by it.
_KEEP = """
WITH said AS (
    SELECT n.id AS node_id, n.link, s.* FROM unnest(%s::text[], %s::timestamptz[], %s::bytea[], %s::text[], %s::text[])
        WITH ORDINALITY AS s (endpoint, at, report, holds, cause, number) JOIN devices_node n ON n.endpoint = s.endpoint
), kept AS (
    INSERT INTO devices_linkevent (at, link, kind, node_id, cause, payload, digest)
    SELECT at, link, kind, node_id, cause, payload, digest FROM (
        SELECT number, 1 AS part, at, link, 'holds' AS kind, node_id, '' AS cause, NULL::bytea AS payload, holds AS digest
        FROM said WHERE holds IS NOT NULL
        UNION ALL SELECT number, 2, at, link, 'report', node_id, cause, report, '' FROM said WHERE report IS NOT NULL
    ) e ORDER BY number, part
)
SELECT DISTINCT endpoint FROM said
"""


def take_in(*, said: Sequence[Said]) -> set[str]:
    """Keeps what nodes said, in this order, for a worker; endpoints that no node has are returned.

    One statement for any number. What comes twice is kept twice: reports are repeated as a matter of course.
    """
    rows: list[list[Any]] = [
        [one.endpoint for one in said],
        [one.at for one in said],
        [one.report for one in said],
        [one.holds for one in said],
        [one.cause for one in said],
    ]
    with connection.cursor() as cursor:
        cursor.execute(_KEEP, rows)
        return {one.endpoint for one in said} - {endpoint for (endpoint,) in cursor.fetchall()}
