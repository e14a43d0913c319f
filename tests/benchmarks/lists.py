"""Every list page and endpoint over N nodes (10,000): how long each takes and how often it asks, by the test client.

`cpu` is the mean of this process alone: where p50 is far above it and the database is idle, the machine was not.

The fleet has 5 versions, 40 campaigns that share the nodes, and audit entries; each address is asked for 30 times.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

REPEATS = 30
LIMITS = {"slowest_list_p95_ms": ("<=", 100.0), "most_queries": ("<=", 12.0), "csv_10k_s": ("<=", 5.0)}
PAGES = {
    "fleet": "/",
    "nodes": "/nodes/",
    "nodes_far_page": "/nodes/?after={far}",
    "nodes_filtered": "/nodes/?text=profile:stm32l4 site:plant-3 version<1.4 label.line=7 seen<24h not label.tag=canary",
    "nodes_filtered_or": "/nodes/?text=(site:plant-1 or label.line=3) not endpoint:press-0000*",
    "nodes_nothing_found": "/nodes/?text=label.line=99 version<1",
    "nodes_by_endpoint": "/nodes/?sort=-endpoint",
    "nodes_by_site": "/nodes/?sort=site",
    "nodes_by_seen": "/nodes/?sort=-seen",
    "nodes_by_battery": "/nodes/?sort=battery",
    "nodes_silent": "/nodes/?silent=on",
    "nodes_by_campaign": "/nodes/?campaign={campaign}&state=failed",
    "node_count": "/nodes/count/",
    "node_count_filtered": "/nodes/count/?text=site:plant-3 version<1.4 seen<24h",
    "node": "/nodes/{node}/",
    "audit": "/audit/",
    "hardware": "/hardware/",
    "models": "/models/",
    "campaigns": "/campaigns/",
    "campaign": "/campaigns/{campaign}/",
}
ENDPOINTS = {
    "api_nodes": "/api/v1/nodes?limit=100",
    "api_nodes_filtered": "/api/v1/nodes?filter=site:plant-3 version<1.4&limit=100",
    "api_nodes_count": "/api/v1/nodes/count",
    "api_versions": "/api/v1/versions",
    "api_campaigns": "/api/v1/campaigns",
    "api_campaign_nodes": "/api/v1/campaigns/{campaign}/nodes",
    "api_profiles": "/api/v1/profiles",
}


def run(n: int | None = None) -> dict[str, float]:
    """p50 and p95 in ms of each address; the export in s, scaled to 10,000 nodes."""
    from tests.benchmarks._database import fresh_database

    nodes = n or 10_000
    with fresh_database():
        return _measure(nodes)


def _measure(nodes: int) -> dict[str, float]:
    from django.conf import settings
    from django.test import Client

    from fleet.accounts.models import Role
    from fleet.accounts.services import issue_token
    from tests import factories

    settings.DEBUG = False
    logging.disable(logging.INFO)  # a line a request would drown the table
    keys = _seed(nodes)
    user = factories.make_user(Role.APPROVER)
    _, secret = issue_token(user=user, name="bench", role=Role.APPROVER, actor="bench")
    client = Client()
    client.force_login(user)
    figures: dict[str, float] = {}
    worst, most = 0.0, 0
    print(f"{'address':<24}{'p50 ms':>9}{'p95 ms':>9}{'cpu ms':>9}{'queries':>9}")
    for name, address in {**PAGES, **ENDPOINTS}.items():
        headers = {"Authorization": f"Bearer {secret}"} if name in ENDPOINTS else {}
        get = _getter(client, address.format(**keys), headers)
        queries = _queries(get)
        cpu = time.process_time()
        times = sorted(_timed(get) for _ in range(REPEATS))
        cpu = (time.process_time() - cpu) / REPEATS * 1000
        p50, p95 = times[REPEATS // 2] * 1000, times[int(REPEATS * 0.95)] * 1000
        print(f"{name:<24}{p50:>9.1f}{p95:>9.1f}{cpu:>9.1f}{queries:>9}")
        figures[f"{name}_p95_ms"] = p95
        worst, most = max(worst, p95), max(most, queries)
    figures["csv_10k_s"] = _timed(_getter(client, "/nodes/export/", {})) * 10_000 / nodes
    return figures | {"slowest_list_p95_ms": worst, "most_queries": most}


def _getter(client: Any, address: str, headers: dict[str, str]) -> Callable[[], None]:
    def get() -> None:
        response = client.get(address, headers=headers)
        if response.status_code != 200:
            raise RuntimeError(f"{address} answered {response.status_code}")
        for _ in getattr(response, "streaming_content", []):
            pass

    return get


def _queries(get: Callable[[], None]) -> int:
    from django.db import connection
    from django.test.utils import CaptureQueriesContext

    get()
    with CaptureQueriesContext(connection) as context:
        get()
    return len(context)


def _timed(get: Callable[[], None]) -> float:
    began = time.perf_counter()
    get()
    return time.perf_counter() - began


def _seed(nodes: int) -> dict[str, int]:
    """A fleet in all states; returns ids for the addresses."""
    from django.db import connection
    from django.utils import timezone

    from devices.models import LinkEvent, Node, NodePresence
    from fleet.audit.models import AuditEntry
    from tests import factories

    chance, now = random.Random(1), timezone.now()
    profiles = [factories.make_profile(name=name) for name in ("stm32l4", "stm32u5", "nrf52", "esp32")]
    family = factories.make_family()
    versions = [factories.make_version(profiles=profiles, family=family, name=f"1.{minor}.0") for minor in range(5)]
    digests = [version.images.get().digest for version in versions]
    made = Node.objects.bulk_create(
        (
            Node(
                endpoint=f"press-{number:06}",
                link="nbiot",
                profile=chance.choice(profiles),
                site=f"plant-{number % 9}",
                labels={"line": str(number % 12)} | ({"tag": "canary"} if number % 50 == 0 else {}),
                active_digest=chance.choice(digests),
            )
            for number in range(nodes)
        ),
        batch_size=1000,
    )
    NodePresence.objects.bulk_create(
        (
            NodePresence(
                node=node,
                last_seen_at=now - timedelta(seconds=chance.expovariate(1 / 20_000)),
                report_interval_s=3600.0,
                battery_percent=chance.randrange(101),
            )
            for node in made
            if chance.random() < 0.97
        ),
        batch_size=1000,
    )
    campaigns = []
    for index in range(40):
        members = [(node, "planned") for node in made[:1]] if index else []
        campaigns.append(factories.make_campaign(version=versions[-1], waves=[members], state="finished"))
    _fill(campaigns, made, chance)
    LinkEvent.objects.bulk_create(
        (LinkEvent(at=now, link="nbiot", kind="holds", node=node, digest=digests[0]) for node in made for _ in "12"),
        batch_size=2000,
    )
    AuditEntry.objects.bulk_create(
        (
            AuditEntry(actor="ann", action="node.registered", object_type="devices.node", object_id=str(node.pk))
            for node in made
        ),
        batch_size=2000,
    )
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")
    return {"far": made[nodes * 9 // 10].pk, "node": made[nodes // 2].pk, "campaign": campaigns[0].pk}


def _fill(campaigns: list[Any], nodes: list[Any], chance: random.Random) -> None:
    """Each node in the first campaign and in one other."""
    from django.utils import timezone

    from tests.factories import CAUSES
    from updates.models import NodeUpdate, UpdateEvent

    now = timezone.now()
    image = campaigns[0].version.images.get()
    waves = {campaign.pk: campaign.waves.get() for campaign in campaigns}
    states = ["confirmed"] * 16 + ["failed", "silent", "skipped", "rejected"]
    for choose in (lambda index: campaigns[0], lambda index: campaigns[1 + index % (len(campaigns) - 1)]):
        rows = []
        for index, node in enumerate(nodes[1:]):
            state = chance.choice(states)
            campaign = choose(index)
            rows.append(
                NodeUpdate(
                    campaign=campaign,
                    wave=waves[campaign.pk],
                    node=node,
                    image=image,
                    state=state,
                    cause=CAUSES.get(state, ""),
                    changed_at=now,
                )
            )
        made = NodeUpdate.objects.bulk_create(rows, batch_size=2000)
        UpdateEvent.objects.bulk_create(
            (
                UpdateEvent(
                    at=now,
                    campaign_id=row.campaign_id,
                    node_id=row.node_id,
                    node_update_id=row.pk,
                    from_state="planned",
                    to_state=row.state,
                    cause=row.cause,
                )
                for row in made
            ),
            batch_size=2000,
        )
