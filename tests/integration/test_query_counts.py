"""Recorded numbers of queries of every list, session and token included: compared exactly, so that none grows unseen.

RECORD_QUERY_COUNTS=1 writes query_counts.json anew; the difference belongs in the same commit as its reason.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from devices.models import SavedView
from fleet.accounts.models import Role, User
from fleet.api import api
from fleet.audit.models import record
from tests import factories
from tests.integration.api.conftest import Caller, call  # noqa: F401 - a fixture
from tests.integration.frontend.conftest import Fleet, fleet, sign_in  # noqa: F401 - fixtures

FILE = Path(__file__).with_name("query_counts.json")
MOST = 12
PAGES = {
    "fleet": "/",
    "nodes": "/nodes/",
    "nodes, filtered": "/nodes/?text=profile:stm32l4 version<9 label.line=7 seen<24h",
    "nodes, sorted": "/nodes/?sort=-seen",
    "nodes, silent": "/nodes/?silent=on",
    "nodes, by campaign": "/nodes/?campaign={campaign}&state=failed",
    "count of nodes": "/nodes/count/?text=profile:stm32l4",
    "node": "/nodes/{node}/",
    "timeline of a node": "/nodes/{node}/timeline/",
    "audit log": "/audit/",
    "users": "/users/",
    "hardware": "/hardware/",
    "unknown endpoints": "/nodes/unknown/",
    "models": "/models/",
    "comparison": "/models/compare/?a={other}&b={version}",
    "patches": "/patches/",
    "network servers": "/network-servers/",
    "model version": "/models/{version}/",
    "campaigns": "/campaigns/",
    "campaign": "/campaigns/{campaign}/",
    "plan": "/campaigns/{draft}/plan/",
}
ENDPOINTS = {
    "GET /nodes": "/nodes?filter=profile:stm32l4",
    "GET /nodes/count": "/nodes/count?filter=profile:stm32l4",
    "GET /node-views": "/node-views",
    "GET /versions": "/versions",
    "GET /versions/{version_id}/fit": "/versions/{version}/fit",
    "GET /versions/{version_id}/validation": "/versions/{version}/validation",
    "GET /profiles": "/profiles",
    "GET /firmware-builds": "/firmware-builds",
    "GET /tokens": "/tokens",
    "GET /audit": "/audit",
    "GET /campaigns": "/campaigns",
    "GET /patches": "/patches",
    "GET /attention": "/attention",
    "GET /network-servers": "/network-servers",
    "GET /campaigns/{campaign_id}/nodes": "/campaigns/{campaign}/nodes",
}


@pytest.fixture
def addresses(fleet: Fleet) -> Callable[[str], str]:  # noqa: F811
    keys = {
        "campaign": fleet.campaign.pk,
        "draft": fleet.draft.pk,
        "version": fleet.version.pk,
        "other": fleet.version.family.versions.get(name="1.0.0").pk,
        "node": fleet.nodes["failed"].pk,
    }
    return lambda template: template.format(**keys)


def recorded(section: str, measured: dict[str, int]) -> dict[str, int]:
    known: dict[str, dict[str, int]] = json.loads(FILE.read_text()) if FILE.exists() else {}
    if os.environ.get("RECORD_QUERY_COUNTS") == "1":
        FILE.write_text(json.dumps(known | {section: measured}, indent=2) + "\n")
        return measured
    return known[section]


def count(get: Callable[[], object]) -> int:
    with CaptureQueriesContext(connection) as context:
        response = get()
        list(getattr(response, "streaming_content", []))
    assert response.status_code == 200, response  # type: ignore[attr-defined]
    return len(context)


def test_each_page_asks_as_often_as_recorded(
    addresses: Callable[[str], str],
    sign_in: Callable[[Role], Client],  # noqa: F811
) -> None:
    client = sign_in(Role.ADMIN)
    SavedView.objects.create(owner=User.objects.get(), name="mine", node_filter="site:plant-3")
    measured = {name: count(lambda: client.get(addresses(address))) for name, address in PAGES.items()}  # noqa: B023

    assert measured == recorded("pages", measured)
    assert max(measured.values()) <= MOST


def test_each_list_of_the_api_asks_as_often_as_recorded(
    addresses: Callable[[str], str],
    call: Caller,  # noqa: F811
) -> None:
    factories.make_firmware()
    call("admin", "GET", "/nodes")  # its time of last use is written now, and not again within a minute
    SavedView.objects.create(owner=User.objects.get(username="admin"), name="mine")
    measured = {
        name: count(lambda: call("admin", "GET", addresses(address)))  # noqa: B023
        for name, address in ENDPOINTS.items()
    }

    assert measured == recorded("api", measured)
    assert max(measured.values()) <= MOST


def test_twenty_more_rows_of_everything_ask_no_more(
    addresses: Callable[[str], str],
    sign_in: Callable[[Role], Client],  # noqa: F811
    call: Caller,  # noqa: F811
) -> None:
    client = sign_in(Role.ADMIN)
    call("admin", "GET", "/nodes")
    lists = [name for name in PAGES if name not in ("node", "model version", "campaign", "plan", "fleet")]

    def measure() -> dict[str, int]:
        pages = {name: count(lambda: client.get(addresses(PAGES[name]))) for name in lists}  # noqa: B023
        return pages | {
            name: count(lambda: call("admin", "GET", addresses(address)))  # noqa: B023
            for name, address in ENDPOINTS.items()
        }

    before = measure()
    owner = User.objects.get(username="admin")
    for number in range(20):
        record(actor="ann", action="node.changed", subject=owner, before={}, after={"number": number})
        node = factories.make_node(seen_at=timezone.now(), firmware_build=factories.make_firmware())
        factories.make_campaign(version=factories.make_version(), waves=[[(node, "failed")]])
        SavedView.objects.create(owner=owner, name=f"view {number}")

    assert measure() == before


def test_every_list_of_the_api_is_recorded() -> None:
    schema = api.get_openapi_schema()
    lists = set()
    for path, methods in schema["paths"].items():
        answer = methods.get("get", {}).get("responses", {}).get(200, {}).get("content", {}).get("application/json")
        if answer is None:
            continue
        shape = answer["schema"]
        if "$ref" in shape:
            shape = schema["components"]["schemas"][shape["$ref"].rsplit("/", 1)[1]]
        if shape.get("type") == "array" or "next" in shape.get("properties", {}):
            lists.add(f"GET {path.removeprefix('/api/v1')}")

    assert lists <= set(ENDPOINTS)
    assert len(lists) >= 9
