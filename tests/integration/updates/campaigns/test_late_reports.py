"""Whatever is reported in whatever state: no state breaks, and what the node holds is known afterwards."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.db import transaction

from devices.models import LinkEventKind
from devices.wire import Cause, NodeState
from tests.integration.updates.campaigns.scene import Scene
from updates.campaigns import actions
from updates.campaigns.reconcile import reconcile
from updates.campaigns.transitions import move
from updates.models import Campaign, NodeUpdate, UpdateEvent
from updates.states import OPEN_STATES, Actor
from updates.states import NodeUpdateState as S

Says = Callable[[Scene, NodeUpdate, Campaign], object]

SAYINGS: dict[str, Says] = {
    "pulls": lambda s, u, c: s.event(
        u.node, LinkEventKind.PROGRESS, reference=u.pk, received_bytes=512, total_bytes=5000
    ),
    "pulled all": lambda s, u, c: s.event(u.node, LinkEventKind.DELIVERED, reference=u.pk),
    "cannot be brought": lambda s, u, c: s.event(
        u.node, LinkEventKind.FAILED, reference=u.pk, cause="no-bundle-for-base"
    ),
    "runs the target": lambda s, u, c: s.event(u.node, LinkEventKind.HOLDS, digest=s.new.digest),
    "runs the old one": lambda s, u, c: s.event(u.node, LinkEventKind.HOLDS, digest=s.old.digest),
    "is on trial": lambda s, u, c: s.report(u.node, c, NodeState.TRIAL),
    "reverted": lambda s, u, c: s.report(u.node, c, NodeState.REVERTED, cause=Cause.WATCHDOG),
    "rejected": lambda s, u, c: s.report(u.node, c, NodeState.REJECTED, cause=Cause.WRONG_CLASS),
    "failed": lambda s, u, c: s.report(u.node, c, NodeState.FAILED, cause=Cause.SELF_TEST_FAILED),
}
# What each saying makes of an open update (by its state) and of a silent one. Left out: it stays as it is.
FROM_OPEN = {
    "pulls": {S.OFFERED: S.TRANSFERRING},
    "pulled all": {S.OFFERED: S.STAGED, S.TRANSFERRING: S.STAGED},
    "cannot be brought": dict.fromkeys(OPEN_STATES, S.FAILED),
    "runs the target": dict.fromkeys(OPEN_STATES, S.CONFIRMED),
    "runs the old one": {},
    "is on trial": {S.OFFERED: S.TRIAL, S.TRANSFERRING: S.TRIAL, S.STAGED: S.TRIAL},
    "reverted": dict.fromkeys(OPEN_STATES, S.REVERTED),
    "rejected": dict.fromkeys(OPEN_STATES, S.REJECTED),
    "failed": dict.fromkeys(OPEN_STATES, S.FAILED),
}
FROM_SILENT = {
    "pulls": S.TRANSFERRING,
    "pulled all": S.STAGED,
    "cannot be brought": S.FAILED,
    "runs the target": S.CONFIRMED,
    "runs the old one": S.SILENT,
    "is on trial": S.TRIAL,
    "reverted": S.REVERTED,
    "rejected": S.REJECTED,
    "failed": S.FAILED,
}
CAUSES = {S.SILENT: "no-contact", S.SKIPPED: "already-current", S.CANCELLED: "aborted"}


@pytest.fixture
def scene(db: None) -> Scene:
    return Scene(nodes=2)


def brought_to(scene: Scene, state: S) -> tuple[NodeUpdate, Campaign]:
    """A node update in this state, come there by moves that the machine allows; the campaign goes on."""
    waves = [{"percent": 50, "soak_s": 0}, {"percent": 100, "soak_s": 0}]
    campaign = scene.tick(scene.campaign(waves=waves))
    if state in (S.PLANNED, S.SKIPPED):
        update = campaign.node_updates.filter(state=S.PLANNED).select_related("node").order_by("pk")[0]
    else:
        update = scene.open_updates(campaign)[0]
    if state not in (S.PLANNED, S.OFFERED):
        by = {S.SILENT: Actor.ENGINE, S.SKIPPED: Actor.ENGINE, S.CANCELLED: Actor.OPERATOR}.get(state, Actor.NODE)
        cause = CAUSES.get(state, "watchdog" if state in (S.FAILED, S.REJECTED, S.REVERTED) else "")
        timeout_s = 1000 if state in OPEN_STATES else None
        assert move([update.pk], state, now=scene.now, by=by, cause=cause, timeout_s=timeout_s)
        if state not in OPEN_STATES:
            update.node.deliveries.update(state="cancelled")
    update.refresh_from_db()
    assert update.state == state
    return update, campaign


@pytest.mark.parametrize("state", list(S))
def test_each_report_in_each_state_moves_as_written_and_counts_right(scene: Scene, state: S) -> None:
    update, campaign = brought_to(scene, state)
    for saying in SAYINGS:
        with transaction.atomic():
            says_twice(scene, update, campaign, saying)
            transaction.set_rollback(True)  # the next saying finds the same state


def says_twice(scene: Scene, update: NodeUpdate, campaign: Campaign, saying: str) -> None:
    state, events = S(update.state), UpdateEvent.objects.count()
    for _ in range(2):
        SAYINGS[saying](scene, update, campaign)
    scene.drain()
    after = NodeUpdate.objects.select_related("node").get(pk=update.pk)
    expected = FROM_OPEN[saying].get(state, state) if state in OPEN_STATES else state
    if state == S.SILENT:
        expected = FROM_SILENT[saying]
    assert after.state == expected, saying
    assert UpdateEvent.objects.count() == events + (expected != state), f"{saying}, twice: it is one transition"
    held = {"runs the target": scene.new.digest, "runs the old one": scene.old.digest}.get(saying)
    if held:
        assert after.node.active_digest == held, "what it holds is known whatever the state"
    assert reconcile() == [], saying


def test_after_an_abort_a_node_that_was_given_up_still_says_how_it_ended(scene: Scene) -> None:
    update, campaign = brought_to(scene, S.SILENT)
    actions.abort(campaign_id=campaign.pk, actor="ana", now=scene.now)
    SAYINGS["is on trial"](scene, update, campaign)
    scene.drain()
    update.refresh_from_db()
    assert update.state == S.SILENT, "nobody ticks an aborted campaign, so nothing opens in it"
    SAYINGS["runs the target"](scene, update, campaign)
    scene.drain()
    update.refresh_from_db()
    assert update.state == S.CONFIRMED


def test_a_node_that_comes_back_from_silence_has_a_deadline_again(scene: Scene) -> None:
    update, campaign = brought_to(scene, S.SILENT)
    SAYINGS["is on trial"](scene, update, campaign)
    scene.drain()
    update.refresh_from_db()
    assert update.due_at is not None
    assert update.due_at > scene.now
