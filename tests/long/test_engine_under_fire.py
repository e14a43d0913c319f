"""A thousand SIGKILLs of two workers at random statements: no node is lost, nothing is doubled, the books are right."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import pytest
from django.db import connection
from django.utils import timezone

from devices.models import LinkEvent, Node
from devices.wire import NodeState
from fleet.operations.models import Count
from tests.integration.updates.campaigns.far_end import FINAL, PASSING, FarEnd
from tests.integration.updates.campaigns.scene import Scene
from updates.campaigns import work
from updates.campaigns.engine import LIVE
from updates.campaigns.reconcile import reconcile
from updates.models import Campaign, NodeUpdate, UpdateEvent
from updates.states import TERMINAL_STATES

ROOT = Path(__file__).resolve().parents[2]
SEED, WORKERS, KILLS, NODES = 20261126, 2, 1000, 60
# Fleet time runs so fast that the wait before another attempt, 8 min to 1 day, is over in seconds at most.
TIME_SCALE = 20_000.0
WAVES = [{"percent": 20, "soak_s": 600}, {"percent": 100, "soak_s": 0}]
LENIENT = {"maximum_failure_percent": 100, "maximum_silent_percent": 100, "minimum_sample": 1}


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.django_db(transaction=True)
def test_a_thousand_kills_lose_and_double_nothing(settings: object) -> None:
    settings.TIME_SCALE = TIME_SCALE  # type: ignore[attr-defined]
    scene = Scene(nodes=NODES, now=timezone.now())
    far = FarEnd({node.pk: scene.old.digest for node in scene.fleet})
    chance = random.Random(SEED)
    campaigns = [_start(scene, timezone.now())]
    with _under_fire() as deaths:
        while deaths.count < KILLS:
            assert deaths.wrong is None, deaths.wrong
            _nodes_act(far, chance, timezone.now())
            deaths.next.wait(timeout=1)
            deaths.next.clear()
            if not Campaign.objects.filter(state__in=LIVE).exists():
                scene.old, scene.new = scene.new, scene.old
                campaigns.append(_start(scene, timezone.now()))
    landed = deaths.count
    _settle(far)

    assert landed >= KILLS
    print(f"{landed} kills in {len(campaigns)} campaigns, {LinkEvent.objects.count()} link events")
    assert len(campaigns) > 3
    # Nobody is lost: each update has ended, and what the server knows of a node is what it runs.
    assert {campaign.state for campaign in Campaign.objects.all()} == {"finished"}
    assert not NodeUpdate.objects.exclude(state__in=TERMINAL_STATES).exists()
    assert not NodeUpdate.objects.filter(state="silent").exists()
    assert dict(Node.objects.values_list("pk", "active_digest")) == {pk: one.active for pk, one in far.nodes.items()}
    # Nothing is doubled: packages, attempts, ends, and each event drained and counted once.
    for update in NodeUpdate.objects.all():
        node = far.nodes[update.node_id]
        assert update.attempts == node.failed[update.pk], update
        assert node.taken[update.pk] <= node.failed[update.pk] + 1, update
    ends = UpdateEvent.objects.filter(to_state__in=TERMINAL_STATES)
    # What the plan left out never moved.
    moved = NodeUpdate.objects.exclude(state="skipped")
    assert ends.count() == ends.values("node_update_id").distinct().count() == moved.count()
    drained = Count.objects.filter(name="link_events").values_list("value", flat=True)
    assert sum(drained) == LinkEvent.objects.count()
    assert reconcile() == []


def _start(scene: Scene, now: datetime) -> Campaign:
    scene.now = now
    # A timer counts fleet time too: longer than any child lives.
    timers = {"offer_timeout_s": 10**9, "progress_timeout_s": 10**9}
    return scene.campaign(waves=WAVES, gate=LENIENT, **timers)


def _nodes_act(far: FarEnd, chance: random.Random, now: datetime) -> None:
    """A few nodes do something, and what is on the air arrives: out of order, some of it twice."""
    for pk in chance.sample(sorted(far.nodes), 8):
        step = chance.random()
        if step < 0.1:
            far.lose_transfer(pk, now=now)
        elif step < 0.5:
            far.begin(pk, now=now)
        elif step < 0.8:
            far.complete(pk, now=now)
        if chance.random() < 0.6:
            end = chance.random()
            if end < 0.15:
                far.fail(pk, NodeState.FAILED, PASSING)
            elif end < 0.2:
                far.fail(pk, NodeState.REJECTED, FINAL)
            elif end < 0.25:
                far.fail(pk, NodeState.REVERTED, PASSING)
            else:
                far.succeed(pk)
    for message in list(far.air):
        if message["kind"] in ("holds", "report") and chance.random() < 0.2:
            far.arrive(message, now=now)
    far.arrive_all(now=now)


def _settle(far: FarEnd) -> None:
    """No more kills: everything comes to its end."""
    until = time.monotonic() + 60
    while Campaign.objects.filter(state__in=LIVE).exists() or LinkEvent.objects.filter(drained_at=None).exists():
        assert time.monotonic() < until, list(NodeUpdate.objects.exclude(state__in=TERMINAL_STATES).values())
        now = timezone.now()
        work.tick_all(now=now)
        for pk in far.nodes:
            far.complete(pk, now=now)
            far.succeed(pk)
        far.arrive_all(now=now)
        work.drain_all(now=timezone.now())


class Deaths:
    """Counts lines of the nurseries."""

    def __init__(self) -> None:
        self.count = 0
        self.wrong: str | None = None
        self.next = threading.Event()

    def listen(self, nursery: subprocess.Popen[str]) -> None:
        assert nursery.stdout is not None
        for line in nursery.stdout:
            if line == "killed\n":
                self.count += 1
                self.next.set()
            else:
                self.wrong = line
        if nursery.wait() != 0 and self.wrong is None:
            self.wrong = f"a nursery ended with {nursery.returncode}"


@contextmanager
def _under_fire() -> Iterator[Deaths]:
    deaths, nurseries, threads = Deaths(), [], []
    environment = os.environ | {"DATABASE_URL": _database_url(), "TIME_SCALE": str(TIME_SCALE)}
    for slot in range(WORKERS):
        command = [sys.executable, "-m", "tests.long.engine_under_fire", str(slot), str(SEED)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        nursery = subprocess.Popen(command, cwd=ROOT, env=environment, text=True, **pipes)
        nurseries.append(nursery)
        threads.append(threading.Thread(target=deaths.listen, args=(nursery,)))
        threads[-1].start()
    try:
        yield deaths
    finally:
        for nursery in nurseries:
            assert nursery.stdin is not None
            nursery.stdin.close()
        for thread in threads:
            thread.join(30)


def _database_url() -> str:
    """Of the tests' own database."""
    given = os.environ["DATABASE_URL"]
    name = connection.settings_dict["NAME"]
    address, _, query = given.partition("?")
    return f"{address.rpartition('/')[0]}/{name}" + (f"?{query}" if query else "")
