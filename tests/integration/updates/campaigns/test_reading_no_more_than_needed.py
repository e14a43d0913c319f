"""The hot statements find their rows by index: PostgreSQL's own plans are read, on a table that is worth an index."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from tests.integration.updates.campaigns.scene import Scene

WAVES = [{"percent": 1, "soak_s": 0}, {"percent": 100, "soak_s": 0}]


@contextmanager
def explained() -> Iterator[list[str]]:
    """Plans of every statement that ran inside and touches node updates."""
    plans: list[str] = []
    with CaptureQueriesContext(connection) as captured:
        yield plans
    for query in captured.captured_queries:
        sql = query["sql"]
        if "updates_nodeupdate" in sql and re.match(r"\s*(SELECT|UPDATE|WITH)", sql):
            with connection.cursor() as cursor:
                cursor.execute("EXPLAIN " + sql.replace("%", "%%") if "%" in sql else "EXPLAIN " + sql)
                plans.append(sql + "\n" + "\n".join(row[0] for row in cursor.fetchall()))


@pytest.mark.django_db
def test_no_tick_and_no_report_scans_all_node_updates() -> None:
    scene = Scene(nodes=5000)
    campaign = scene.campaign(waves=WAVES)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")
    with explained() as ticks:
        scene.tick(campaign)
        scene.tick(campaign, later_s=1)
    for update in scene.open_updates(campaign)[:5]:
        scene.confirm(update)
    with explained() as drains:
        scene.drain()
    assert len(ticks) > 3
    assert len(drains) > 3
    scans = [plan for plan in ticks + drains if "Seq Scan on updates_nodeupdate" in plan]
    assert scans == []
