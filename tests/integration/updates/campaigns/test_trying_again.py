"""What may pass is tried again, later each time; what cannot is final; and only real failures are counted."""

from __future__ import annotations

from datetime import timedelta

from devices.models import Delivery, LinkEventKind
from devices.wire import Cause, NodeState
from tests.integration.updates.campaigns.scene import Scene
from updates.campaigns import actions
from updates.campaigns.retries import FIRST_S
from updates.models import Campaign, NodeUpdate


def fails(scene: Scene, campaign: Campaign, update: NodeUpdate, cause: Cause = Cause.FLASH_FAILURE) -> None:
    """Pulls a block and gives up."""
    scene.event(update.node, LinkEventKind.PROGRESS, reference=update.pk, received_bytes=512, total_bytes=5000)
    scene.report(update.node, campaign, NodeState.FAILED, cause=cause)
    scene.drain()
    update.refresh_from_db()


def test_a_failure_that_may_pass_is_planned_again_and_offered_after_a_while(scene: Scene) -> None:
    campaign = scene.tick(scene.campaign())
    update = scene.open_updates(campaign)[0]
    fails(scene, campaign, update)
    assert (update.state, update.cause, update.attempts, update.received_bytes) == ("planned", "flash-failure", 1, 0)
    assert not Delivery.objects.filter(reference=update.pk, state="waiting").exists()
    wait_s = (update.not_before - scene.now).total_seconds()
    assert 0.5 * FIRST_S <= wait_s <= 1.5 * FIRST_S
    scene.tick(campaign, later_s=wait_s - 1)
    assert campaign.node_updates.get(pk=update.pk).state == "planned"
    scene.tick(campaign, later_s=2)
    assert campaign.node_updates.get(pk=update.pk).state == "offered"
    assert Delivery.objects.filter(reference=update.pk, state="waiting").count() == 1


def test_nodes_that_failed_together_do_not_come_back_together(scene: Scene) -> None:
    campaign = scene.tick(scene.campaign())
    updates = scene.open_updates(campaign)
    for update in updates:
        fails(scene, campaign, update)
    assert len({update.not_before for update in updates}) == len(updates)


def test_the_last_attempt_that_fails_ends_it(scene: Scene) -> None:
    campaign = scene.tick(scene.campaign(maximum_attempts=3))
    update = scene.open_updates(campaign)[0]
    for _ in range(3):
        scene.now += timedelta(days=1)
        scene.tick(campaign)
        fails(scene, campaign, update)
    assert (update.state, update.cause, update.attempts) == ("failed", "flash-failure", 3)


def test_a_final_cause_ends_it_at_the_first_failure(scene: Scene) -> None:
    campaign = scene.tick(scene.campaign())
    update = scene.open_updates(campaign)[0]
    fails(scene, campaign, update, Cause.SELF_TEST_FAILED)
    assert (update.state, update.attempts) == ("failed", 1)


def test_a_node_that_repeats_its_last_failure_has_not_failed_again(scene: Scene) -> None:
    campaign = scene.tick(scene.campaign())
    update = scene.open_updates(campaign)[0]
    fails(scene, campaign, update)
    for _ in range(3):
        scene.report(update.node, campaign, NodeState.FAILED, cause=Cause.FLASH_FAILURE)
    scene.drain()
    scene.tick(campaign, later_s=2 * FIRST_S)
    scene.report(update.node, campaign, NodeState.FAILED, cause=Cause.FLASH_FAILURE)
    scene.drain()
    update.refresh_from_db()
    assert (update.state, update.attempts) == ("offered", 1)


def test_what_the_link_saw_of_the_attempt_before_does_not_end_this_one(scene: Scene) -> None:
    campaign = scene.tick(scene.campaign())
    update = scene.open_updates(campaign)[0]
    late = scene.now
    fails(scene, campaign, update)
    scene.tick(campaign, later_s=2 * FIRST_S)
    event = scene.event(update.node, LinkEventKind.FAILED, reference=update.pk, cause="object5-result-4")
    type(event).objects.filter(pk=event.pk).update(at=late)
    scene.drain()
    update.refresh_from_db()
    assert (update.state, update.attempts) == ("offered", 1)


def test_the_second_attempt_can_succeed(scene: Scene) -> None:
    campaign = scene.tick(scene.campaign())
    for update in scene.open_updates(campaign):
        fails(scene, campaign, update)
    scene.tick(campaign, later_s=2 * FIRST_S)
    for update in scene.open_updates(campaign):
        scene.confirm(update)
    scene.drain()
    scene.tick(campaign, times=3)
    assert (campaign.state, scene.states(campaign)) == ("finished", {"confirmed": 10})


def test_a_wave_waits_for_its_next_attempts(scene: Scene) -> None:
    campaign = scene.tick(scene.campaign())
    failed, *others = scene.open_updates(campaign)
    fails(scene, campaign, failed)
    for update in others:
        scene.confirm(update)
    scene.drain()
    scene.tick(campaign, times=3)
    assert campaign.state == "running"


def test_sleep_pauses_and_cancels_are_no_attempts(scene: Scene) -> None:
    campaign = scene.tick(scene.campaign(offer_timeout_s=100))
    actions.pause(campaign_id=campaign.pk, actor="olga", now=scene.now)
    actions.resume(campaign_id=campaign.pk, actor="ana", now=scene.now)
    scene.tick(campaign)
    scene.tick(campaign, later_s=101)
    actions.abort(campaign_id=scene.campaign().pk, actor="ana", now=scene.now)
    assert set(NodeUpdate.objects.values_list("attempts", flat=True)) == {0}


def test_after_the_campaign_has_finished_a_late_failure_is_final(scene: Scene) -> None:
    campaign = scene.tick(scene.campaign(offer_timeout_s=100))
    late = scene.open_updates(campaign)[0]
    scene.event(late.node, LinkEventKind.PROGRESS, reference=late.pk, received_bytes=512, total_bytes=5000)
    for update in scene.open_updates(campaign)[1:]:
        scene.confirm(update)
    scene.drain()
    scene.tick(campaign, later_s=48 * 3600 + 1)
    scene.tick(campaign, times=3)
    assert campaign.state == "finished"
    scene.report(late.node, campaign, NodeState.FAILED, cause=Cause.FLASH_FAILURE)
    scene.drain()
    assert scene.states(campaign) == {"confirmed": 9, "failed": 1}
