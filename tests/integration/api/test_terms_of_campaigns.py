"""What CI sends with a campaign besides its nodes, and what comes back."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from devices.models import Node
from tests.integration.api.conftest import Caller
from tests.integration.updates.campaigns.conftest import books_are_right  # noqa: F401
from tests.integration.updates.campaigns.scene import Scene
from updates.models import Campaign

NIGHTLY = {"rrule": "FREQ=WEEKLY;BYDAY=MO,TU", "start": "22:00", "end": "05:00"}


def body(scene: Scene, **terms: Any) -> dict[str, Any]:
    return {"name": "terms", "version_id": scene.new.version_id, "waves": [{"percent": 100}]} | terms


def test_terms_are_kept_shown_and_bound_by_the_plan(call: Caller) -> None:
    scene = Scene()
    ends_at = (timezone.now() + timedelta(days=30)).replace(microsecond=0)
    terms = {
        "ends_at": ends_at.isoformat(),
        "end_behaviour": "cancel",
        "maximum_attempts": 5,
        "priority": 70,
        "limits": {"site": 4, "campaign": 200},
        "windows": {"transfer": [NIGHTLY], "blackout": [{"from": "2026-12-24", "to": "2027-01-01"}]},
        "membership": "dynamic",
    }
    made = call("operator", "POST", "/campaigns", body(scene, **terms))
    assert made.status_code == 201, made.content
    shown = call("viewer", "GET", f"/campaigns/{made.json()['id']}").json()
    for name in ("end_behaviour", "maximum_attempts", "priority", "limits", "windows", "membership"):
        assert shown[name] == terms[name]
        assert shown["plan"]["terms"][name] == terms[name]
    assert Campaign.objects.get().ends_at == ends_at


def test_a_campaign_without_terms_has_the_defaults(call: Caller) -> None:
    made = call("operator", "POST", "/campaigns", body(Scene())).json()
    assert (made["priority"], made["limits"], made["windows"], made["membership"]) == (50, {}, {}, "fixed")
    assert (made["offer_timeout_s"], made["progress_timeout_s"], made["ends_at"]) == (48 * 3600, 48 * 3600, None)


@pytest.mark.parametrize(
    ("terms", "field"),
    [
        ({"windows": {"transfer": [{**NIGHTLY, "start": "10 pm"}]}}, "windows.transfer.0.start"),
        ({"windows": {"transfer": [{**NIGHTLY, "rrule": "FREQ=HOURLY"}]}}, "windows.transfer.0.rrule"),
        ({"windows": {"blackout": [{"from": "24.12."}]}}, "windows.blackout.0.from"),
        ({"limits": {"gatewayy": 3}}, "limits.gatewayy"),
        ({"limits": {"site": 0}}, "limits.site"),
        ({"ends_at": "2020-01-01T00:00:00Z"}, "ends_at"),
    ],
)
def test_a_term_that_makes_no_sense_is_named_with_its_fix(call: Caller, terms: dict[str, Any], field: str) -> None:
    response = call("operator", "POST", "/campaigns", body(Scene(), **terms))
    assert (response.status_code, response.json()["field"]) == (422, field)
    assert response.json()["fix"]
    assert not Campaign.objects.exists()


@pytest.mark.parametrize(
    "terms",
    [
        {"priority": 101},
        {"ends_at": "2030-01-01T00:00:00"},
        {"maximum_attempts": 0},
        {"membership": "open"},
        {"windows": {"transfers": []}},
        {"prio": 1},
    ],
)
def test_what_the_schema_forbids_is_refused(call: Caller, terms: dict[str, Any]) -> None:
    assert call("operator", "POST", "/campaigns", body(Scene(), **terms)).status_code == 422


def test_attention_lists_nodes_and_releases_them(call: Caller) -> None:
    scene = Scene(now=timezone.now())
    campaign = scene.tick(scene.campaign(offer_timeout_s=100))
    scene.tick(campaign, later_s=101)
    page = call("viewer", "GET", "/attention?limit=6").json()
    assert {one["kind"] for one in page["nodes"]} == {"silent"}
    rest = call("viewer", "GET", f"/attention?limit=6&before={page['next']}").json()
    assert (len(rest["nodes"]), rest["next"]) == (4, None)
    path = f"/attention/nodes/{page['nodes'][0]['node_id']}/release"
    assert call("operator", "POST", path).json() == {"released": False}


def test_a_node_has_a_time_zone_that_exists(call: Caller) -> None:
    Scene()
    node = {"endpoint": "berlin-1", "link": "nbiot", "profile": "m4", "time_zone": "Europe/Berlin"}
    assert call("operator", "POST", "/nodes", node).json()["time_zone"] == "Europe/Berlin"
    wrong = call("operator", "POST", "/nodes", node | {"endpoint": "berlin-2", "time_zone": "Berlin"})
    assert (wrong.status_code, wrong.json()["field"]) == (422, "0.time_zone")
    assert Node.objects.filter(endpoint__startswith="berlin").count() == 1
