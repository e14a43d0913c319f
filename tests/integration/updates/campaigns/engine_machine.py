"""A model of the whole engine for hypothesis: two workers on connections of their own, killed or held at any statement;
messages that are lost, doubled, late and out of order; clocks that jump; people who pause, resume, abort and roll back.

After each step: no illegal move, no node with two open updates or deliveries, tallies exact, the books in order. At the
end, when nothing is lost any more, every campaign ends and the server knows what every node runs.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import Any
from unittest import mock

from django.db import connection, connections, transaction
from django.db.models import Count
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from devices.models import OPEN_DELIVERY, Delivery, Node
from devices.wire import NodeState
from tests.integration.updates.campaigns.far_end import FINAL, PASSING, FarEnd
from tests.integration.updates.campaigns.killing import Killed, at_statement
from tests.integration.updates.campaigns.scene import Scene
from updates.campaigns import actions, ingest, rollback, work
from updates.campaigns.actions import ActionRefused
from updates.campaigns.plan import PlanRefused
from updates.campaigns.reconcile import reconcile
from updates.models import Campaign, NodeUpdate, UpdateEvent
from updates.states import NODE_UPDATE, TERMINAL_STATES, CampaignState

NODES = 4
PATIENCE_S = 60.0
LENIENT = {"maximum_failure_percent": 100, "maximum_silent_percent": 100, "minimum_sample": 1}
WAVES = [{"percent": 50, "soak_s": 60}, {"percent": 100, "soak_s": 0}]
LIVE = [CampaignState.SCHEDULED, CampaignState.RUNNING, CampaignState.PAUSED, CampaignState.HALTED]
LEGAL = {(source, one.target) for one in NODE_UPDATE.rules for source in one.sources}

a_node = st.integers(0, NODES - 1)
a_worker = st.integers(0, 1)
a_moment = st.integers(0, 120)
a_job = st.sampled_from(["tick", "drain"])


class Worker:
    """A thread with a connection of its own, until it is killed."""

    def __init__(self) -> None:
        self.thread = ThreadPoolExecutor(1)
        self.backend = 0

    def start(self, job: Callable[[], object], *, moment: int = -1, strike: Callable[[], None] = lambda: None) -> Any:
        """`strike` is called at that moment of the job, see `at_statement`."""

        def run() -> None:
            connection.ensure_connection()
            self.backend = connection.connection.info.backend_pid
            try:
                with at_statement(moment, strike):
                    job()
            finally:
                if connection.connection.closed:
                    connection.close()
                    del connections["default"]

        def unless_killed() -> None:
            # What falls over a closed connection on the way out would hide that it was killed.
            _dying.now = False
            try:
                run()
            except BaseException:
                if not _dying.now:
                    raise

        return self.thread.submit(unless_killed)

    def close(self) -> None:
        self.thread.submit(lambda: connection.close()).result(PATIENCE_S)
        self.thread.shutdown()


# Of each worker's thread: whether it was killed in its job.
_dying = threading.local()


def die() -> None:
    """Nothing that this worker does afterwards reaches the database."""
    _dying.now = True
    connection.connection.close()
    raise Killed


class EngineMachine(RuleBasedStateMachine):
    @initialize()
    def build(self) -> None:
        _forget_all()
        # Waves must be the same when hypothesis walks the same way again.
        numbers = itertools.count(1)
        self.salts = mock.patch(
            "updates.campaigns.plan.secrets.token_hex", lambda size: f"{next(numbers):0{2 * size}x}"
        )
        self.salts.start()
        self.scene = Scene(nodes=NODES)
        self.start = self.scene.now
        self.pks = [node.pk for node in self.scene.fleet]
        self.far = FarEnd(dict.fromkeys(self.pks, self.scene.old.digest))
        self.workers = [Worker(), Worker()]

    # Workers

    def job(self, name: str) -> Callable[[], object]:
        now = self.scene.now
        return partial(work.tick_all, now=now) if name == "tick" else partial(ingest.drain, now=now, limit=3)

    @rule(name=a_job, worker=a_worker)
    def works(self, name: str, worker: int) -> None:
        self.workers[worker].start(self.job(name)).result(PATIENCE_S)

    @rule(name=a_job, worker=a_worker, moment=a_moment)
    def is_killed(self, name: str, worker: int, moment: int) -> None:
        self.workers[worker].start(self.job(name), moment=moment, strike=die).result(PATIENCE_S)

    @rule(first=a_job, second=a_job, moment=a_moment, dies=st.booleans())
    def work_at_once(self, first: str, second: str, moment: int, dies: bool) -> None:
        """The first stands still at a moment of its work until the second has ended, or waits for it."""
        reached, go_on = threading.Event(), threading.Event()

        def stand_still() -> None:
            reached.set()
            assert go_on.wait(PATIENCE_S)
            if dies:
                die()

        ours: Future[None] = self.workers[0].start(self.job(first), moment=moment, strike=stand_still)
        while not reached.wait(0.002) and not ours.done():
            pass
        theirs: Future[None] = self.workers[1].start(self.job(second))
        until = time.monotonic() + PATIENCE_S
        while not theirs.done() and not self._waits(self.workers[1]):
            assert time.monotonic() < until
        go_on.set()
        ours.result(PATIENCE_S)
        theirs.result(PATIENCE_S)

    def _waits(self, worker: Worker) -> bool:
        with connection.cursor() as cursor:
            cursor.execute("SELECT cardinality(pg_blocking_pids(%s)) > 0", [worker.backend])
            return bool(cursor.fetchone()[0])

    # People

    @rule(
        forward=st.booleans(),
        priority=st.sampled_from([50, 60]),
        limits=st.sampled_from([{}, {"campaign": 2}, {"site": 1}]),
        waves=st.booleans(),
    )
    def campaign(self, forward: bool, priority: int, limits: dict[str, int], waves: bool) -> None:
        if Campaign.objects.filter(state__in=LIVE).count() > 1:
            return
        scene = self.scene
        scene.new, scene.old = (scene.new, scene.old) if forward else (scene.old, scene.new)
        try:
            scene.campaign(gate=LENIENT, waves=WAVES if waves else None, priority=priority, limits=limits)
        except PlanRefused:
            pass
        finally:
            scene.new, scene.old = (scene.new, scene.old) if forward else (scene.old, scene.new)

    @rule(what=st.sampled_from(["pause", "resume", "resume", "abort", "roll_back"]), which=st.integers(0, 1))
    def person(self, what: str, which: int) -> None:
        live = list(Campaign.objects.filter(state__in=LIVE).order_by("pk").values_list("pk", flat=True))
        if not live:
            return
        campaign_id = live[which % len(live)]
        act = rollback.roll_back if what == "roll_back" else getattr(actions, what)
        with suppress(ActionRefused):
            act(campaign_id=campaign_id, actor="olga", now=self.scene.now)

    # Nodes and their messages

    @rule(index=a_node, what=st.sampled_from(["begin", "complete", "complete", "lose_transfer"]))
    def node_pulls(self, index: int, what: str) -> None:
        getattr(self.far, what)(self.pks[index], now=self.scene.now)

    @rule(index=a_node, how=st.sampled_from(["succeed", "succeed", "try_out", "fails", "reverts", "rejects", "speak"]))
    def node_decides(self, index: int, how: str) -> None:
        self._decide(self.pks[index], how)

    def _decide(self, pk: int, how: str) -> None:
        if how == "fails":
            self.far.fail(pk, NodeState.FAILED, PASSING)
        elif how == "reverts":
            self.far.fail(pk, NodeState.REVERTED, PASSING)
        elif how == "rejects":
            self.far.fail(pk, NodeState.REJECTED, FINAL)
        else:
            getattr(self.far, how)(pk)

    @rule(which=st.integers(0, 10**6), fate=st.sampled_from(["arrives", "arrives", "twice", "lost"]))
    def message(self, which: int, fate: str) -> None:
        """Any of those under way, so they come late and out of order; one that comes twice stays under way."""
        if not self.far.air:
            return
        index = which % len(self.far.air)
        message = self.far.air[index] if fate == "twice" else self.far.air.pop(index)
        if fate != "lost":
            self.far.arrive(message, now=self.scene.now)

    @rule()
    def messages_arrive(self) -> None:
        self.far.arrive_all(now=self.scene.now)

    @rule(hours=st.sampled_from([0.02, 0.3, 1, 25, 49, 200]))
    def time_passes(self, hours: float) -> None:
        self.scene.now += timedelta(hours=hours)

    # What holds at any time

    @invariant()
    def books_are_right(self) -> None:
        assert reconcile() == []

    @invariant()
    def every_move_was_legal(self) -> None:
        moves = UpdateEvent.objects.values_list("from_state", "to_state").distinct()
        assert {move for move in moves if move not in LEGAL} == set()

    @invariant()
    def nothing_is_sent_twice(self) -> None:
        live = Delivery.objects.filter(state__in=OPEN_DELIVERY)
        assert not live.values("node_id").annotate(number=Count("pk")).filter(number__gt=1).exists()
        # Each whole package of a node update but the last belongs to an attempt that the node or its link called failed.
        for node in self.far.nodes.values():
            for update, taken in node.taken.items():
                assert taken <= node.failed[update] + 1, (node, update)

    @invariant()
    def attempts_are_failures(self) -> None:
        for pk, node_id, attempts in NodeUpdate.objects.values_list("pk", "node_id", "attempts"):
            assert attempts <= self.far.nodes[node_id].failed[pk], (pk, attempts)

    # The end: nothing is lost any more

    def teardown(self) -> None:
        if not hasattr(self, "workers"):
            return
        try:
            self._settle()
        finally:
            self.salts.stop()
            for worker in self.workers:
                worker.close()

    def _settle(self) -> None:
        for campaign in Campaign.objects.filter(state__in=[CampaignState.PAUSED, CampaignState.HALTED]):
            actions.resume(campaign_id=campaign.pk, actor="olga", now=self.scene.now)
        for _ in range(60):
            self._round()
            if not Campaign.objects.filter(state__in=LIVE).exists() and not self.far.air:
                break
            for campaign in Campaign.objects.filter(state=CampaignState.PAUSED):
                actions.resume(campaign_id=campaign.pk, actor="olga", now=self.scene.now)
            self.scene.now += timedelta(hours=30)
        self._round()
        self.books_are_right()
        self.every_move_was_legal()
        self.nothing_is_sent_twice()
        left = Campaign.objects.filter(state__in=LIVE).values_list("pk", "state", "reason")
        assert not left, (list(left), list(NodeUpdate.objects.values()))
        assert not NodeUpdate.objects.exclude(state__in=TERMINAL_STATES).exists()
        known = dict(Node.objects.values_list("pk", "active_digest"))
        assert known == {pk: node.active for pk, node in self.far.nodes.items()}

    def _round(self) -> None:
        work.tick_all(now=self.scene.now)
        for pk in self.pks:
            self.far.complete(pk, now=self.scene.now)
            if not self.far.succeed(pk):
                self.far.speak(pk)
        self.far.arrive_all(now=self.scene.now)
        self.scene.drain()
        work.tick_all(now=self.scene.now)


def _forget_all() -> None:
    """Between two examples. Versions and blobs go too: names in a scene are the same each time."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL lock_timeout = '20s'")
        cursor.execute(
            "TRUNCATE updates_campaign, updates_updateevent, devices_delivery, devices_linkevent, devices_offering,"
            " devices_node, devices_hardwareprofile, devices_firmwarebuild, updates_modelfamily, devices_knownimage CASCADE"
        )
