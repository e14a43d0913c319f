"""Two workers at once, on two connections: nothing is done twice, nobody waits without need."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest
from django.db import connection, transaction

from devices.models import Delivery, LinkEvent, LinkEventKind
from devices.services import take_events
from tests.integration.updates.campaigns.scene import Scene
from updates.campaigns import engine, ingest, work
from updates.campaigns.reconcile import reconcile
from updates.campaigns.transitions import TICK_WAIT_S, lock_for_tick
from updates.models import UpdateEvent

pytestmark = pytest.mark.django_db(transaction=True)


def at_once(*calls: Callable[[], object]) -> list[object]:
    """Runs each on a thread with a connection of its own, started together; raises what any raised."""
    barrier, results, errors = threading.Barrier(len(calls)), [], []

    def run(call: Callable[[], object]) -> None:
        try:
            barrier.wait(timeout=10)
            results.append(call())
        except BaseException as error:
            errors.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    if errors:
        raise errors[0]
    return results


def test_ticks_at_the_same_time_offer_each_node_once() -> None:
    scene = Scene(nodes=200)
    campaign = scene.campaign()
    at_once(*[lambda: engine.tick(campaign_id=campaign.pk, now=scene.now)] * 4)
    assert Delivery.objects.count() == 200
    assert scene.tallies(campaign) == {"offered": 200}
    assert reconcile() == []


def test_a_tick_leaves_at_once_where_another_tick_works_on_the_campaign() -> None:
    scene = Scene()
    campaign = scene.campaign()
    with transaction.atomic():
        assert lock_for_tick(campaign.pk)
        began = time.monotonic()
        assert at_once(lambda: engine.tick(campaign_id=campaign.pk, now=scene.now)) == [False]
        assert time.monotonic() - began < TICK_WAIT_S / 2


def test_workers_that_drain_at_the_same_time_count_each_report_once() -> None:
    scene = Scene(nodes=200)
    campaign = scene.tick(scene.campaign())
    for update in scene.open_updates(campaign):
        scene.confirm(update)
    at_once(
        *[lambda: ingest.drain(now=scene.now, limit=100)] * 3,
        lambda: engine.tick(campaign_id=campaign.pk, now=scene.now),
    )
    scene.drain()
    assert not LinkEvent.objects.filter(drained_at=None).exists()
    assert scene.tallies(campaign) == {"confirmed": 200}
    assert UpdateEvent.objects.filter(to_state="confirmed").count() == 200
    assert reconcile() == []


def test_what_a_node_said_next_waits_while_a_worker_is_at_what_it_said_before() -> None:
    scene = Scene(nodes=2)
    first, second = scene.fleet
    for node in (first, first, second):
        scene.event(node, LinkEventKind.HOLDS, digest=scene.old.digest)
    with transaction.atomic():
        assert [event.node_id for event in take_events(now=scene.now, limit=1)] == [first.pk]
        (others,) = at_once(transaction.atomic(lambda: take_events(now=scene.now, limit=10)))
    assert first.pk not in [event.node_id for event in others]


def test_a_campaign_that_cannot_be_ticked_does_not_stop_the_next_one() -> None:
    scene = Scene()
    broken, sound = scene.campaign(), scene.campaign()
    broken.gate = {"no-such-limit": 1}
    broken.save()
    work.tick_all(now=scene.now)
    assert scene.tallies(broken) == {"planned": 10}
    assert scene.tallies(sound) == {"offered": 10}
