"""Steady ingest holds a campaign nearly always; a tick must get its turn between two batches, and never hang."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connection, transaction

from tests.integration.updates.campaigns.scene import Scene
from updates.campaigns import engine
from updates.campaigns.transitions import lock, lock_for_tick

pytestmark = pytest.mark.django_db(transaction=True)


def on_a_connection_of_its_own(call: Callable[[], object]) -> Callable[[], object]:
    def run() -> object:
        try:
            return call()
        finally:
            connection.close()

    return run


def wait_until_somebody_waits_for_an_advisory_lock() -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
            if cursor.fetchone()[0]:
                return
    pytest.fail("nobody waits for the lock of the campaign")


def test_a_tick_that_finds_a_batch_at_work_comes_before_the_next_batch() -> None:
    scene = Scene()
    campaign = scene.campaign()
    order: list[str] = []

    def next_batch() -> None:
        with transaction.atomic():
            lock([campaign.pk], wait=True)
            order.append("next batch")

    def tick() -> None:
        assert engine.tick(campaign_id=campaign.pk, now=scene.now)
        order.append("tick")

    with ThreadPoolExecutor(2) as pool:
        with transaction.atomic():
            lock([campaign.pk], wait=True)
            ticked = pool.submit(on_a_connection_of_its_own(tick))
            wait_until_somebody_waits_for_an_advisory_lock()
        batch = pool.submit(on_a_connection_of_its_own(next_batch))
        ticked.result(timeout=20)
        batch.result(timeout=20)
    assert scene.tallies(campaign) == {"offered": 10}


def test_ticks_get_their_turn_while_batches_follow_each_other_without_a_pause() -> None:
    scene = Scene()
    campaign = scene.campaign()
    stopping = threading.Event()
    held = threading.Event()

    def drain_without_a_pause() -> None:
        while not stopping.is_set():
            with transaction.atomic(), connection.cursor() as cursor:
                lock([campaign.pk], wait=True)
                held.set()
                cursor.execute("SELECT pg_sleep(0.05)")  # a batch at work

    with ThreadPoolExecutor(1) as pool:
        draining = pool.submit(on_a_connection_of_its_own(drain_without_a_pause))
        try:
            assert held.wait(timeout=20)
            looked = [engine.tick(campaign_id=campaign.pk, now=scene.now) for _ in range(20)]
        finally:
            stopping.set()
        draining.result(timeout=20)
    assert looked == [True] * 20


def test_a_lock_that_does_not_come_in_time_is_given_up_and_spoils_nothing() -> None:
    scene = Scene()
    campaign = scene.campaign()

    def tick() -> tuple[bool, str]:
        with transaction.atomic(), connection.cursor() as cursor:
            got = lock_for_tick(campaign.pk, within_s=0.05)
            cursor.execute("SHOW lock_timeout")
            return got, cursor.fetchone()[0]

    with ThreadPoolExecutor(1) as pool, transaction.atomic():
        lock([campaign.pk], wait=True)
        assert pool.submit(on_a_connection_of_its_own(tick)).result(timeout=20) == (False, "0")
