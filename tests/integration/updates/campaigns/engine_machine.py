"""A model of the whole engine for hypothesis: two workers on connections of their own, killed or held at any statement;
messages that are lost, doubled, late and out of order; clocks that jump ahead and back and differ between the workers;
people who pause, resume, abort and roll back; campaigns with limits, windows, ends and filters that nodes come to match.

After each step: no tick fails, no move is illegal or too early, no node has two open updates or deliveries, no place is taken
twice, tallies are exact, the books in order. At the end, when nothing is lost any more, every campaign ends and the server
knows what every node runs.
"""

from __future__ import annotations

import itertools
import sys
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from functools import partial
from random import Random
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
from updates.campaigns.windows import Calendar
from updates.models import Campaign, CampaignMove, NodeUpdate, UpdateEvent, Wave
from updates.states import NODE_UPDATE, OPEN_STATES, TERMINAL_STATES, CampaignState

NODES = 4
PATIENCE_S = 60.0
LENIENT = {"maximum_failure_percent": 100, "maximum_silent_percent": 100, "minimum_sample": 1}
WAVES = [{"percent": 50, "soak_s": 60}, {"percent": 100, "soak_s": 0}]
LIVE = [CampaignState.SCHEDULED, CampaignState.RUNNING, CampaignState.PAUSED, CampaignState.HALTED]
LEGAL = {("", "planned")} | {(source, one.target) for one in NODE_UPDATE.rules for source in one.sources}
SITES = ("hall-1", "hall-2")
TERMS: list[dict[str, Any]] = [
    {},
    {"limits": {"campaign": 2}},
    {"limits": {"site": 1}},
    {"limits": {"wave": 1, "site": 1}},
    {"windows": {"transfer": [{"start": "22:00", "end": "13:00"}]}},
    {"membership": "dynamic", "node_filter": "label.in:yes"},
    {"ends_in_h": 30, "end_behaviour": "finish"},
    {"ends_in_h": 30, "end_behaviour": "cancel"},
]
PULLS = ("begin", "complete", "lose_transfer")
STEPS = [
    "begin",
    "complete",
    "complete",
    "lose_transfer",
    "succeed",
    "succeed",
    "try_out",
    "fails",
    "reverts",
    "rejects",
]
STEPS += ["speak"]
WISHES = ["pause", "resume", "pause", "resume", "resume", "roll_back", "abort"]
# The clock of the second worker's machine is wrong by this.
SKEW = timedelta(seconds=-40)

a_node = st.integers(0, NODES - 1)
a_moment = st.integers(0, 200)
a_job = st.sampled_from(["tick", "drain"])


def _steps(weight: int, method: str, /, **arguments: st.SearchStrategy[Any]) -> list[st.SearchStrategy[Any]]:
    return [st.tuples(st.just(method), st.fixed_dictionaries(arguments))] * weight


# What may happen next, the likelier the higher its weight: left to itself, hypothesis leaves whole rules out of most walks, and
# these never come to where something may go wrong.
a_step = st.one_of(
    *_steps(
        6,
        "nodes_act",
        acts=st.lists(st.tuples(a_node, st.sampled_from(STEPS)), min_size=2, max_size=10),
        well=st.sampled_from([True, True, False]),
        order=st.none() | st.integers(0, 9999),
    ),
    *_steps(3, "works", name=a_job, worker=st.integers(0, 1), moment=st.none() | a_moment),
    *_steps(3, "work_at_once", first=a_job, second=a_job, moment=a_moment, dies=st.booleans()),
    *_steps(2, "message", which=st.integers(0, 10**6), fate=st.sampled_from(["arrives", "arrives", "twice", "lost"])),
    *_steps(2, "time_passes", hours=st.sampled_from([0.02, 0.3, 0.3, 1, 1, 13, 49, 200, -0.02, -1, -25])),
    *_steps(2, "person", what=st.sampled_from(WISHES), which=st.integers(0, 1)),
    *_steps(
        1,
        "campaign",
        forward=st.booleans(),
        priority=st.sampled_from([50, 60]),
        terms=st.sampled_from(TERMS),
        waves=st.booleans(),
    ),
    *_steps(1, "node_is_relabelled", index=a_node, inside=st.booleans()),
)


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
    @initialize(terms=st.sampled_from(TERMS), waves=st.booleans())
    def build(self, terms: dict[str, Any], waves: bool) -> None:
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
        for index, pk in enumerate(self.pks):
            Node.objects.filter(pk=pk).update(site=SITES[index % 2], labels={"in": "yes" if index else "no"})
        self.failures: list[str] = []
        self.log = mock.patch.object(work.log, "exception", self._tick_failed)
        self.log.start()
        self.far = FarEnd(dict.fromkeys(self.pks, self.scene.old.digest))
        self.workers = [Worker(), Worker()]
        self._start(forward=True, priority=50, terms=terms, waves=waves)
        work.tick_all(now=self.scene.now)

    @rule(step=a_step)
    def happens(self, step: tuple[str, dict[str, Any]]) -> None:
        name, arguments = step
        getattr(self, name)(**arguments)

    def _tick_failed(self, event: str) -> None:
        """The loop over all campaigns catches what a tick raises: here it is no less wrong for that."""
        if not getattr(_dying, "now", False):
            self.failures.append(traceback.format_exc())

    # Workers

    def job(self, name: str, worker: int = 0) -> Callable[[], object]:
        now = self.scene.now + worker * SKEW
        return partial(work.tick_all, now=now) if name == "tick" else partial(ingest.drain, now=now, limit=3)

    def works(self, name: str, worker: int, moment: int | None) -> None:
        """Until it is killed at that moment, where there is one."""
        strike = {} if moment is None else {"moment": moment, "strike": die}
        self.workers[worker].start(self.job(name, worker), **strike).result(PATIENCE_S)

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
        theirs: Future[None] = self.workers[1].start(self.job(second, 1))
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

    def campaign(self, forward: bool, priority: int, terms: dict[str, Any], waves: bool) -> None:
        if Campaign.objects.filter(state__in=LIVE).count() > 1:
            return
        self._start(forward=forward, priority=priority, terms=terms, waves=waves)

    def _start(self, *, forward: bool, priority: int, terms: dict[str, Any], waves: bool) -> None:
        scene, terms = self.scene, dict(terms)
        if "ends_in_h" in terms:
            terms["ends_at"] = scene.now + timedelta(hours=terms.pop("ends_in_h"))
        scene.new, scene.old = (scene.new, scene.old) if forward else (scene.old, scene.new)
        try:
            scene.campaign(gate=LENIENT, waves=WAVES if waves else None, priority=priority, **terms)
        except PlanRefused:
            pass
        finally:
            scene.new, scene.old = (scene.new, scene.old) if forward else (scene.old, scene.new)

    def node_is_relabelled(self, index: int, inside: bool) -> None:
        Node.objects.filter(pk=self.pks[index]).update(labels={"in": "yes" if inside else "no"})

    def person(self, what: str, which: int) -> None:
        live = list(Campaign.objects.filter(state__in=LIVE).order_by("pk").values_list("pk", flat=True))
        if not live:
            return
        campaign_id = live[which % len(live)]
        act = rollback.roll_back if what == "roll_back" else getattr(actions, what)
        with suppress(ActionRefused):
            act(campaign_id=campaign_id, actor="olga", now=self.scene.now)

    # Nodes and their messages

    def nodes_act(self, acts: list[tuple[int, str]], well: bool, order: int | None) -> None:
        """Well: what they wait for has come, and they are heard, in this order or as they spoke. So walks come far enough to
        meet what goes wrong late."""
        if well:
            if not Campaign.objects.filter(state__in=LIVE).exists():
                self._start(forward=not self._all_run(self.scene.new.digest), priority=50, terms={}, waves=True)
            work.tick_all(now=self.scene.now)
        for index, step in acts:
            if step in PULLS:
                getattr(self.far, step)(self.pks[index], now=self.scene.now)
            else:
                self._decide(self.pks[index], step)
        if well:
            self.far.arrive_all(now=self.scene.now, chance=None if order is None else Random(order))
            self.scene.drain()

    def _all_run(self, digest: str) -> bool:
        return not Node.objects.exclude(active_digest=digest).exists()

    def _decide(self, pk: int, how: str) -> None:
        if how == "fails":
            self.far.fail(pk, NodeState.FAILED, PASSING)
        elif how == "reverts":
            self.far.fail(pk, NodeState.REVERTED, PASSING)
        elif how == "rejects":
            self.far.fail(pk, NodeState.REJECTED, FINAL)
        else:
            getattr(self.far, how)(pk)

    def message(self, which: int, fate: str) -> None:
        """Any of those under way, so they come late and out of order; one that comes twice stays under way."""
        if not self.far.air:
            return
        index = which % len(self.far.air)
        message = self.far.air[index] if fate == "twice" else self.far.air.pop(index)
        if fate != "lost":
            self.far.arrive(message, now=self.scene.now)

    def time_passes(self, hours: float) -> None:
        """Or the clock is set back."""
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
    def every_tick_came_through(self) -> None:
        assert self.failures == []

    @invariant()
    def no_wave_goes_before_its_turn(self) -> None:
        untouched = ["planned", "skipped", "cancelled"]
        assert not NodeUpdate.objects.filter(wave__state="waiting").exclude(state__in=untouched).exists()
        sent = UpdateEvent.objects.filter(to_state="offered").values("node_update_id")
        assert not NodeUpdate.objects.filter(wave__state="waiting", pk__in=sent).exists()
        for wave in Wave.objects.filter(opened_at__isnull=False, index__gt=0):
            before = Wave.objects.get(campaign=wave.campaign_id, index=wave.index - 1)
            assert before.soak_until is not None
            assert wave.opened_at is not None
            assert before.soak_until <= wave.opened_at

    @invariant()
    def nothing_is_offered_or_given_up_too_early(self) -> None:
        history: dict[int, list[UpdateEvent]] = {}
        for event in UpdateEvent.objects.order_by("id"):
            history.setdefault(event.node_update_id, []).append(event)
        for update in NodeUpdate.objects.select_related("campaign"):
            events = history.get(update.pk, [])
            if update.state == "offered" and update.not_before is not None:
                assert events[-1].at >= update.not_before, "before its wait was over"
            calendar = Calendar.read(update.campaign.windows)
            assert all(calendar.transfer_open(event.at, "") for event in events if event.to_state == "offered")
            if any(event.cause == "window-closed" for event in events):
                continue  # its timer had stood still and was shorter the second time
            for before, event in itertools.pairwise(events):
                if event.to_state == "silent":
                    timers = {
                        "no-contact": update.campaign.offer_timeout_s,
                        "no-progress": update.campaign.progress_timeout_s,
                    }
                    assert event.at - before.at >= timedelta(seconds=timers[event.cause]), (before, event)

    @invariant()
    def a_newer_campaign_takes_only_what_no_node_has_begun(self) -> None:
        stood_still = CampaignMove.objects.filter(wave_index=None, to_state__in=["paused", "halted"]).values("campaign")
        taken = UpdateEvent.objects.filter(to_state="cancelled", cause="superseded", from_state="transferring")
        assert not taken.exclude(campaign__in=stood_still).exists()

    @invariant()
    def no_place_is_taken_twice(self) -> None:
        """A node that was given up and speaks again is open whatever the limit: nobody can forbid it to."""
        for campaign in Campaign.objects.filter(limits__campaign__isnull=False):
            opened = campaign.node_updates.filter(state__in=OPEN_STATES).count()
            reopened = UpdateEvent.objects.filter(campaign=campaign, from_state="silent", to_state__in=OPEN_STATES)
            assert opened <= campaign.limits["campaign"] + reopened.count()
        for site in SITES:
            carried = Delivery.objects.filter(state__in=OPEN_DELIVERY, node__site=site)
            owners = Campaign.objects.filter(node_updates__in=carried.values("reference"))
            if all(owner.limits.get("site") == 1 for owner in owners):
                assert carried.count() <= 1, site

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
            # A walk that has failed need not come to its end.
            if sys.exc_info()[0] is None:
                self._settle()
        finally:
            self.salts.stop()
            self.log.stop()
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
        self.every_tick_came_through()
        self.nothing_is_sent_twice()
        left = Campaign.objects.filter(state__in=LIVE).values_list("pk", "state", "reason")
        assert not left, (list(left), list(NodeUpdate.objects.values()))
        assert not NodeUpdate.objects.exclude(state__in=TERMINAL_STATES).exists()
        newest = NodeUpdate.objects.order_by("node_id", "-id").distinct("node_id").select_related("image")
        for update in newest:
            runs_it = update.image is not None and update.image.digest == self.far.nodes[update.node_id].active
            assert not (update.state == "silent" and runs_it), (update.pk, "it has spoken, and is still given up")
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
