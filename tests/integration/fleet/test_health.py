"""/health/live and /health/ready tell true facts, name no version or secret, and say what to do."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from django.db import OperationalError
from django.test import Client, override_settings
from django.utils import timezone

from devices.models import LinkEvent, LoRaWanDevice, NetworkEvent, NetworkServer
from fleet.accounts.models import Role
from fleet.operations.heart import DEAD_AFTER_S, EVERY_S, Heart
from fleet.operations.models import Heartbeat, LastRun, ProcessKind
from fleet.operations.services import FORGET_AFTER, beat, ran
from fleet.status import checks
from tests import factories
from tests.integration.updates.campaigns.scene import Scene
from updates.campaigns import work
from updates.models import ModelVersion

pytestmark = pytest.mark.django_db


@pytest.fixture
def everything_lives() -> None:
    now = timezone.now()
    beat(kind=ProcessKind.BEAT, name="beat@a", serves="", started_at=now, now=now)
    beat(kind=ProcessKind.GATEWAY, name="a:1", serves="nbiot", started_at=now, now=now)
    for queue in checks.QUEUE_LIMITS_S:
        beat(kind=ProcessKind.WORKER, name=f"{queue}@a", serves=queue, started_at=now, now=now)
    ran(durations_s={"tick": 0.01}, now=now)


def ready(client: Client, **wanted: str) -> tuple[int, dict[str, Any]]:
    response = client.get("/health/ready", wanted)
    return response.status_code, {check["name"]: check for check in response.json().get("checks", [])}


def test_live_asks_nobody(client: Client, django_assert_num_queries: Any) -> None:
    with django_assert_num_queries(0):
        response = client.get("/health/live")
    assert (response.status_code, response.json()) == (200, {"state": "ok"})


def test_a_whole_installation_is_ready(client: Client, everything_lives: None) -> None:
    status, found = ready(client)
    assert (status, [check for check in found.values() if check["state"] == "failed"]) == (200, [])
    assert set(found) == {
        *("database", "broker", "beat", "queue-campaigns", "queue-links", "queue-pipeline", "gateway-nbiot")
    }


@pytest.mark.parametrize(
    ("kind", "serves", "name", "advice"),
    [
        ("beat", "", "beat", "start it, one only"),
        ("gateway", "nbiot", "gateway-nbiot", "start the gateway"),
        ("worker", "links", "queue-links", "worker -Q links"),
        ("worker", "pipeline", "queue-pipeline", "worker -Q pipeline"),
    ],
)
def test_a_process_that_was_killed_is_missed_and_advice_says_what_to_start(
    client: Client, everything_lives: None, kind: str, serves: str, name: str, advice: str
) -> None:
    silent_since = timezone.now() - timedelta(seconds=DEAD_AFTER_S + 1)
    Heartbeat.objects.filter(kind=kind, serves=serves).update(beat_at=silent_since)
    status, found = ready(client)
    assert (status, found[name]["state"]) == (503, "failed")
    assert advice in found[name]["advice"]
    assert [other for other, check in found.items() if check["state"] == "failed"] == [name]


def test_a_gateway_is_not_needed_where_no_node_has_its_link(client: Client, everything_lives: None) -> None:
    Heartbeat.objects.filter(kind=ProcessKind.GATEWAY).delete()
    assert ready(client)[1]["gateway-nbiot"]["state"] == "unneeded"
    factories.make_node(link="nbiot")
    status, found = ready(client)
    assert (status, found["gateway-nbiot"]["state"], found["gateway-nbiot"]["value"]) == (503, "failed", None)


def test_the_links_queue_is_as_old_as_its_oldest_event_that_is_not_drained(
    client: Client, everything_lives: None
) -> None:
    node, now = factories.make_node(), timezone.now()
    for age_s, drained_at in ((500, now), (90, None), (5, None)):
        LinkEvent.objects.create(
            at=now - timedelta(seconds=age_s), link="nbiot", kind="holds", node=node, drained_at=drained_at
        )
    status, found = ready(client)
    assert status == 503
    assert 90 <= found["queue-links"]["value"] < 100
    assert (found["queue-links"]["state"], found["queue-links"]["limit"]) == ("failed", 60.0)
    assert "add a worker" in found["queue-links"]["advice"]


def test_posts_that_nobody_read_and_nodes_that_nobody_looked_at_age_the_links_queue_too() -> None:
    now = timezone.now()
    server = NetworkServer.objects.create(name="field", target="c:1", token_sealed=b"", event_base_url="https://f")
    node = factories.make_node(link="lorawan", endpoint="0a00000000000001")
    device = LoRaWanDevice.objects.create(node=node, server=server, region="EU868", due_at=now + timedelta(hours=1))
    assert checks.queue_age("links", now=now) == 0
    NetworkEvent.objects.create(
        server=server, node=node, kind="up", key="up:1", at=now - timedelta(seconds=70), body={}
    )
    assert checks.queue_age("links", now=now) == 70
    device.due_at = now - timedelta(seconds=200)
    device.save()
    assert checks.queue_age("links", now=now) == 200


def test_the_pipeline_queue_counts_free_work_and_lost_leases_but_not_a_build_under_way() -> None:
    now = timezone.now()
    old = now - timedelta(hours=3)

    def version(state: str, lease_minutes: float | None) -> None:
        made = factories.make_version(state=state)
        lease = None if lease_minutes is None else now + timedelta(minutes=lease_minutes)
        ModelVersion.objects.filter(pk=made.pk).update(created_at=old, lease_until=lease)

    version("building", 2)
    version("ready", None)
    assert checks.queue_age("pipeline", now=now) == 0
    version("building", -10)
    assert checks.queue_age("pipeline", now=now) == pytest.approx(600)
    version("uploaded", None)
    assert checks.queue_age("pipeline", now=now) == pytest.approx(3 * 3600)


def test_a_campaign_that_no_tick_reaches_makes_its_queue_old_although_others_are_looked_at() -> None:
    scene = Scene()
    starved, served = scene.campaign(), scene.campaign()
    work.tick_all(now=scene.now)
    now = timezone.now()
    assert checks.queue_age("campaigns", now=now) == pytest.approx(0, abs=5)
    LastRun.objects.filter(pk=f"tick:{starved.pk}").update(at=now - timedelta(seconds=99))
    assert checks.queue_age("campaigns", now=now) == pytest.approx(99)
    assert served.state == "scheduled"


def test_a_database_that_is_away_fails_its_checks_and_nothing_raises(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*args: object, **kwargs: object) -> object:
        raise OperationalError("connection to server at 10.0.0.7 failed: password for modelfleet")

    monkeypatch.setattr("fleet.status.checks.transaction.atomic", away)
    response = client.get("/health/ready")
    assert response.status_code == 503
    assert "10.0.0.7" not in response.content.decode()
    assert "look at its log" in response.json()["checks"][0]["advice"]


@override_settings(CELERY_BROKER_URL="redis://127.0.0.1:1/0")
def test_a_broker_that_is_away_is_told(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    from fleet.celery import app

    monkeypatch.setattr(app, "connection_for_read", lambda **kwargs: app.connection("redis://:hush@127.0.0.1:1/0"))
    status, found = ready(client, checks="broker,database")
    assert (status, found["broker"]["state"], found["database"]["state"]) == (503, "failed", "ok")
    assert "hush" not in json.dumps(found)


def test_an_unknown_check_is_refused_with_the_names_that_there_are(client: Client) -> None:
    response = client.get("/health/ready", {"checks": "database,disk"})
    assert response.status_code == 400
    assert "broker" in response.json()["fix"]


def test_nobody_learns_versions_hosts_or_addresses(client: Client, everything_lives: None) -> None:
    response = client.get("/health/ready")
    text = response.content.decode() + str(response.headers)
    for word in ("Django", "PostgreSQL 1", "granian", "@a", "socket", "python"):
        assert word.lower() not in text.lower()


@pytest.mark.django_db(transaction=True)  # a beat closes its connection
def test_a_heart_beats_once_in_ten_seconds_forgets_the_long_dead_and_takes_leave() -> None:
    clock, now = [0.0], timezone.now()
    beat(kind=ProcessKind.WEB, name="long-dead", serves="", started_at=now, now=now - 2 * FORGET_AFTER)
    heart = Heart(ProcessKind.WEB, name="here", clock=lambda: clock[0], now=lambda: now + timedelta(seconds=clock[0]))
    beats = []
    for clock[0] in (0.0, 1.0, EVERY_S - 0.1, EVERY_S + 0.1):
        beats.append(heart.beat())
    assert beats == [True, False, False, True]
    row = Heartbeat.objects.get()
    assert (row.name, row.beat_at) == ("here", now + timedelta(seconds=EVERY_S + 0.1))
    heart.stop()
    assert not Heartbeat.objects.exists()


def test_the_status_page_has_one_verdict_and_shows_a_dead_process(client: Client, everything_lives: None) -> None:
    assert client.get("/status/").status_code == 302
    client.force_login(factories.make_user(Role.VIEWER))
    assert "The fleet manager itself is well." in client.get("/status/").content.decode()
    Heartbeat.objects.filter(serves="links").update(beat_at=timezone.now() - timedelta(minutes=5))
    page = client.get("/status/").content.decode()
    assert "One part of the fleet manager needs you: Queue links." in page
    assert "Not heard of" in page
    part = client.get("/status/", headers={"HX-Request": "true"}).content.decode()
    assert part.count("<html") == 0
    assert 'hx-swap-oob="true"' in part
