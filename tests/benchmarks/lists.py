"""Every list page, filter, sort and endpoint over N nodes (10,000): how long it takes and how often it asks, by the test client.

`cpu` is the mean of this process alone: where p50 is far above it and the database is idle, the machine was not.

The fleet has 5 versions, 40 campaigns that share the nodes, and audit entries; each address is asked for 30 times.
"""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Callable
from typing import Any

REPEATS = 30
LIMITS = {"slowest_list_p95_ms": ("<=", 100.0), "most_queries": ("<=", 12.0), "csv_10k_s": ("<=", 5.0)}
FILTERS = {
    "all_terms": "profile:stm32l4 site:plant-3 version<1.4 label.line=7 seen<24h not label.tag=canary",
    "either": "(site:plant-1 or label.line=3) not endpoint:press-0000*",
    "nothing": "label.line=99 version<1",
    "endpoint": "endpoint:press-0000777",
    "endpoint_begins": "endpoint:press-00007*",
    "endpoint_ends": "endpoint:*0777",
    "endpoint_none": "endpoint:*no-such*",
    "profile": "profile:esp32",
    "profile_none": "profile:no-such",
    "not_link": "not link:nbiot",
    "site": "site:plant-5",
    "site_pattern": "site:*-5",
    "site_none": "site:*nowhere*",
    "label": "label.line=7",
    "label_rare": "label.loaned:yes",
    "label_has": "label.loaned:*",
    "label_pattern": "label.serial:*abcde",
    "label_none": "label.serial:*xyz*",
    "not_label": "not label.line:*",
    "model": "model:gesture",
    "not_model": "not model:gesture",
    "version": "version=1.2.0",
    "version_none": "version>9",
    "seen": "seen<1h",
    "seen_long_ago": "seen>60d",
    "seen_never": "seen:never",
    "battery": "battery<5",
    "battery_none": "battery>100",
    "rare_and_common": "seen:never label.tag=canary profile:nrf52",
    "contradiction": "site:plant-1 site:plant-2",
    "seen_nowhere": "seen>30d battery<1 site:plant-4",
}
SORTS = ("", "endpoint", "-endpoint", "site", "-site", "seen", "-seen", "battery", "-battery")
# Every filter in the order of registration, and some under every order that the screen offers.
SORTED = ("", "site", "endpoint_ends", "label", "label_rare", "either", "nothing", "seen_never", "not_label")
LISTS = {
    f"nodes {filter_name or 'unfiltered'} {sort}".strip(): f"/nodes/?text={FILTERS.get(filter_name, '')}&sort={sort}"
    for filter_name in ("", *FILTERS)
    for sort in SORTS
    if not sort or filter_name in SORTED
} | {
    "nodes far page": "/nodes/?after={far}",
    "nodes far page by site": "/nodes/?sort=site&after={far}&at=plant-6",
    "nodes far page by battery": "/nodes/?sort=-battery&after={far}&at=20",
    "nodes silent": "/nodes/?silent=on",
    "nodes of a campaign": "/nodes/?campaign={campaign}&state=failed",
    "audit": "/audit/",
    "hardware": "/hardware/",
    "models": "/models/",
    "campaigns": "/campaigns/",
    "api nodes": "/api/v1/nodes?limit=100",
    "api nodes filtered": "/api/v1/nodes?filter=site:plant-3 version<1.4&limit=100",
    "api versions": "/api/v1/versions",
    "api campaigns": "/api/v1/campaigns",
    "api campaign nodes": "/api/v1/campaigns/{campaign}/nodes",
    "api profiles": "/api/v1/profiles",
}
# Totals and single objects: shown beside the lists, asked for apart.
OTHERS = {
    "fleet": "/",
    "node": "/nodes/{node}/",
    "campaign": "/campaigns/{campaign}/",
    "count": "/nodes/count/",
    "count filtered": "/nodes/count/?text=site:plant-3 version<1.4 seen<24h",
}


def run(n: int | None = None) -> dict[str, float]:
    """p95 in ms of each address; the export in s, scaled to 10,000 nodes."""
    from tests.benchmarks._database import fresh_database

    with fresh_database():
        return measure(n or 10_000)


def measure(nodes: int, repeats: int = REPEATS) -> dict[str, float]:
    """In the database at hand, which is empty. Prints a row for each address."""
    from django.conf import settings
    from django.test import Client

    from fleet.accounts.models import Role
    from fleet.accounts.services import issue_token
    from tests import factories

    settings.DEBUG = False
    # As a web process does it (fleet/wsgi.py).
    gc.collect()
    gc.freeze()
    logging.disable(logging.INFO)  # a line a request would drown the table
    keys = _seed(nodes)
    user = factories.make_user(Role.APPROVER)
    _, secret = issue_token(user=user, name="bench", role=Role.APPROVER, actor="bench")
    client = Client()
    client.force_login(user)
    figures: dict[str, float] = {}
    most, listed = 0, list[float]()
    print(f"{'address':<36}{'p50 ms':>9}{'p95 ms':>9}{'cpu ms':>9}{'queries':>9}")
    for name, address in {**LISTS, **OTHERS}.items():
        headers = {"Authorization": f"Bearer {secret}"} if address.startswith("/api") else {}
        get = _getter(client, address.format(**keys), headers)
        queries = _queries(get)
        cpu = time.process_time()
        times = sorted(_timed(get) for _ in range(repeats))
        cpu = (time.process_time() - cpu) / repeats * 1000
        p50, p95 = times[repeats // 2] * 1000, times[int(repeats * 0.95)] * 1000
        print(f"{name:<36}{p50:>9.1f}{p95:>9.1f}{cpu:>9.1f}{queries:>9}", flush=True)
        figures[f"{name.replace(' ', '_')}_p95_ms"] = p95
        most = max(most, queries)
        listed += times if name in LISTS else []
    slowest = max(figures[f"{name.replace(' ', '_')}_p95_ms"] for name in LISTS)
    figures["list_p95_ms"] = sorted(listed)[int(len(listed) * 0.95)] * 1000
    figures["csv_10k_s"] = _timed(_getter(client, "/nodes/export/", {})) * 10_000 / nodes
    return figures | {"slowest_list_p95_ms": slowest, "most_queries": most}


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

    from devices.models import Node
    from tests import factories
    from tests.benchmarks._database import indexes_afterwards
    from updates.models import ModelImage

    profiles = [factories.make_profile(name=name) for name in ("stm32l4", "stm32u5", "nrf52", "esp32")]
    family = factories.make_family(name="gesture")
    versions = [factories.make_version(profiles=profiles, family=family, name=f"1.{minor}.0") for minor in range(5)]
    campaigns = [factories.make_campaign(version=versions[-1], waves=[[]], state="finished") for _ in range(40)]
    values = {
        "nodes": nodes,
        "profiles": [profile.pk for profile in profiles],
        "digests": list(ModelImage.objects.order_by("pk").values_list("known_id", flat=True)),
        "image": versions[-1].images.get().pk,
        "campaigns": [campaign.pk for campaign in campaigns],
        "waves": [campaign.waves.get().pk for campaign in campaigns],
    }
    with indexes_afterwards("devices_node"), connection.cursor() as cursor:
        cursor.execute("SELECT setseed(0.5)")
        for statement in _FLEET:
            cursor.execute(statement, values)
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE")
    ids = Node.objects.order_by("pk").values_list("pk", flat=True)
    return {"far": ids[nodes * 9 // 10], "node": ids[nodes // 2], "campaign": campaigns[0].pk}


# Each node has two updates: one in the first campaign, one in another; 16 of 20 ended well.
_STATE = """(ARRAY['failed', 'silent', 'skipped', 'rejected', 'confirmed'])[least(1 + (random() * 20)::int, 5)]"""
_FLEET = (
    """
    INSERT INTO devices_node (endpoint, link, profile_id, site, labels, time_zone, active_digest, standby_digest, sequence,
        created_at)
    SELECT 'press-' || lpad(i::text, 7, '0'), 'nbiot', (%(profiles)s::bigint[])[1 + (random() * 3)::int],
        'plant-' || i %% 9,
        jsonb_build_object('line', (i %% 12)::text, 'serial', md5(i::text))
            || CASE WHEN i %% 50 = 0 THEN '{"tag": "canary"}'::jsonb ELSE '{}' END
            || CASE WHEN i %% 20000 = 7 THEN '{"loaned": "yes"}'::jsonb ELSE '{}' END,
        '', (%(digests)s::text[])[1 + (random() * 4)::int], '', 0, now()
    FROM generate_series(1, %(nodes)s) i
    """,
    """
    INSERT INTO devices_nodepresence (node_id, last_seen_at, report_interval_s, battery_percent, address)
    SELECT id, now() + ln(random() + 1e-9) * interval '20000 s', 3600, (random() * 100)::int, '' FROM devices_node
    WHERE random() < 0.97
    """,
    f"""
    INSERT INTO updates_nodeupdate (campaign_id, wave_id, node_id, image_id, method, state, cause, base_digest,
        received_bytes, total_bytes, attempts, changed_at)
    SELECT (%(campaigns)s::bigint[])[c], (%(waves)s::bigint[])[c], n.id, %(image)s, 'patch', {_STATE}, 'no-contact', '',
        0, 0, 0, now()
    FROM devices_node n, LATERAL (VALUES (1), (2 + n.id::int %% 39)) AS own (c) ORDER BY c, n.id
    """,  # noqa: S608 - our own text
    """
    INSERT INTO updates_updateevent (at, campaign_id, node_id, node_update_id, from_state, to_state, cause)
    SELECT now(), campaign_id, node_id, id, 'planned', state, cause FROM updates_nodeupdate
    """,
    """
    UPDATE updates_tally t SET count = n.number FROM (SELECT wave_id, state, count(*) AS number FROM updates_nodeupdate
        GROUP BY 1, 2) n WHERE n.wave_id = t.wave_id AND n.state = t.state
    """,
    """
    INSERT INTO devices_linkevent (at, link, kind, node_id, cause, digest, drained_at)
    SELECT now(), 'nbiot', 'holds', id, '', active_digest, now() FROM devices_node
    """,
    """
    INSERT INTO audit_auditentry (at, actor, action, object_type, object_id, object_name)
    SELECT now(), 'ann', 'node.registered', 'devices.node', id::text, '' FROM devices_node LIMIT 100000
    """,
)
