"""/metrics: who may read it, what it says, and that the alert rules and the documentation name what there is."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path

import pytest
import yaml
from django.test import Client, override_settings
from django.utils import timezone
from prometheus_client.parser import text_string_to_metric_families

from devices.models import NetworkEvent, NetworkServer
from fleet.operations.models import LastRun, ProcessKind
from fleet.operations.services import beat, count, observe
from tests import factories
from tests.integration.updates.campaigns.scene import Scene
from updates.campaigns import work
from updates.campaigns.reconcile import prove
from updates.models import Tally

ROOT = Path(__file__).resolve().parents[3]
TOKEN = "a-token-of-prometheus"
pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("token")]


@pytest.fixture
def token() -> object:
    with override_settings(METRICS_TOKEN=TOKEN):
        yield


def scrape(client: Client) -> dict[str, dict[tuple[str, ...], float]]:
    """Samples by name, then by label values in the order of their names."""
    response = client.get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"})
    assert response.status_code == 200
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(response.content.decode()):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sample.labels[name] for name in sorted(sample.labels))] = (
                sample.value
            )
    return found


def test_only_a_bearer_of_the_token_reads_metrics(client: Client) -> None:
    assert client.get("/metrics").status_code == 401
    assert client.get("/metrics", headers={"Authorization": "Bearer wrong"}).status_code == 401
    assert client.get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200


@override_settings(METRICS_TOKEN="")
def test_without_a_token_there_are_no_metrics_but_in_debug(client: Client) -> None:
    assert client.get("/metrics").status_code == 404
    with override_settings(DEBUG=True):
        assert client.get("/metrics").status_code == 200


def test_a_campaign_is_counted_by_states_links_and_events(client: Client) -> None:
    scene = Scene()
    campaign = scene.tick(scene.campaign())
    first, second, *_ = scene.open_updates(campaign)
    scene.confirm(first)
    scene.drain()
    scene.delivered(second)
    work.tick_all(now=scene.now)
    found = scrape(client)
    assert found["modelfleet_campaigns"]["running",] == 1
    assert found["modelfleet_campaigns"]["halted",] == 0
    assert found["modelfleet_node_updates"]["confirmed",] == 1
    assert found["modelfleet_node_updates"]["offered",] == 9
    assert found["modelfleet_link_events_undrained"][()] == 1
    assert found["modelfleet_link_events_total"] == {
        ("delivered", "nbiot"): 1,
        ("holds", "nbiot"): 1,
        ("report", "nbiot"): 1,
    }
    assert found["modelfleet_deliveries_open"]["nbiot",] == 8
    sizes = found["modelfleet_patch_bytes"]
    assert 0 < sizes["patch",] < sizes["full",] == scene.new.size + scene.old.size
    assert found["modelfleet_tick_duration_seconds"][()] == LastRun.objects.get(pk="tick").duration_s


def quiet_server() -> NetworkServer:
    last = timezone.now() - timedelta(hours=2)
    fields = {"target": "c:1", "token_sealed": b"", "event_base_url": "https://f", "last_event_at": last}
    return NetworkServer.objects.create(name="field", **fields)


def test_a_chirpstack_that_went_quiet_and_posts_that_wait_are_counted(client: Client) -> None:
    server = quiet_server()
    node = factories.make_node(link="lorawan", endpoint="0a00000000000001")
    NetworkEvent.objects.create(server=server, node=node, kind="up", key="up:1", at=timezone.now(), body={})
    found = scrape(client)
    assert found["modelfleet_network_events_unread"][()] == 1
    assert 7200 <= found["modelfleet_network_server_quiet_seconds"]["field",] < 7300


def test_what_does_not_add_up_is_counted(client: Client) -> None:
    scene = Scene()
    campaign = scene.tick(scene.campaign())
    Tally.objects.filter(wave__campaign=campaign, state="offered").update(count=9)
    prove(now=timezone.now())
    found = scrape(client)
    assert found["modelfleet_reconcile_findings"][()] == 1
    assert found["modelfleet_reconcile_age_seconds"][()] < 60


def test_build_times_make_a_histogram_a_stage(client: Client) -> None:
    for seconds in (0.05, 3.0, 3.0, 9999.0):
        observe("build_seconds", "judge", seconds)
    found = scrape(client)
    buckets = found["modelfleet_build_duration_seconds_bucket"]
    assert buckets["0.1", "judge"] == 1
    assert buckets["5", "judge"] == 3
    assert buckets["600", "judge"] == 3
    assert buckets["+Inf", "judge"] == found["modelfleet_build_duration_seconds_count"]["judge",] == 4
    assert found["modelfleet_build_duration_seconds_sum"]["judge",] == pytest.approx(10005.05)


def test_requests_are_timed_by_view_and_status_never_by_path(client: Client) -> None:
    before = scrape(client).get("modelfleet_web_request_duration_seconds_count", {})
    client.get("/login/")
    client.get("/no/such/place/4711")
    after = scrape(client)["modelfleet_web_request_duration_seconds_count"]
    assert after["200", "login"] == before.get(("200", "login"), 0) + 1
    assert after["404", "none"] == before.get(("404", "none"), 0) + 1
    assert not [labels for labels in after if "4711" in labels[1]]


def everything(client: Client) -> set[str]:
    prove(now=timezone.now())
    Scene().campaign()
    observe("build_seconds", "judge", 1)
    observe("build_seconds", "patch", 1)
    work.tick_all(now=Scene.now)
    now = timezone.now()
    beat(kind=ProcessKind.WEB, name="here", serves="", started_at=now, now=now)
    count("link_events", {("nbiot", "holds"): 1})
    quiet_server()
    client.get("/login/")
    return set(scrape(client))


def test_every_metric_of_an_alert_rule_exists(client: Client) -> None:
    rules = [
        rule for group in yaml.safe_load((ROOT / "docs/alerts.yml").read_text())["groups"] for rule in group["rules"]
    ]
    named = {name for rule in rules for name in re.findall(r"modelfleet_\w+", rule["expr"])}
    assert len(rules) >= 8
    assert named <= everything(client)
    for rule in rules:
        assert rule["expr"].count("(") == rule["expr"].count(")")
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert rule["annotations"]["summary"]


def test_every_metric_is_documented_and_every_documented_one_exists(client: Client) -> None:
    documented = set(re.findall(r"`(modelfleet_\w+)", (ROOT / "docs/operations.md").read_text()))
    families = {re.sub(r"_(total|bucket|count|sum|created)$", "", name) for name in everything(client)}
    assert {re.sub(r"_total$", "", name) for name in documented} == families
