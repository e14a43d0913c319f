"""The way back: by command where the previous slot is whole, else by patch."""

from __future__ import annotations

import pytest

from devices.models import Delivery, LinkEventKind, Node
from devices.wire import NodeState
from tests.integration.updates.campaigns.scene import Scene
from updates.campaigns import actions, work
from updates.campaigns.rollback import roll_back
from updates.models import Campaign, Patch
from updates.services import build_patches_due


def rolled_out(scene: Scene) -> Campaign:
    campaign = scene.tick(scene.campaign())
    for update in scene.open_updates(campaign):
        scene.confirm(update)
    scene.drain()
    return scene.tick(campaign, times=3)


def test_nodes_whose_previous_slot_is_whole_get_a_command_of_a_few_bytes(scene: Scene) -> None:
    campaign = rolled_out(scene)
    rollback = scene.tick(roll_back(campaign_id=campaign.pk, actor="ana", now=scene.now))
    commands = Delivery.objects.filter(reference__in=rollback.node_updates.values("pk"))
    assert {len(delivery.command) for delivery in commands} == {17}
    assert rollback.plan["bytes_sent"] == 170


def test_a_node_that_lost_its_previous_slot_gets_the_reverse_patch(scene: Scene) -> None:
    campaign = rolled_out(scene)
    Node.objects.filter(pk=scene.fleet[0].pk).update(standby_digest="")
    rollback = scene.tick(roll_back(campaign_id=campaign.pk, actor="ana", now=scene.now))
    update = rollback.node_updates.get(node=scene.fleet[0])
    bundles = Delivery.objects.get(reference=update.pk).offering.bundles
    assert update.method == "patch"
    assert bundles.filter(base_digest=scene.new.digest).exists()


def test_a_node_that_refuses_the_command_gets_the_reverse_patch_instead(scene: Scene) -> None:
    campaign = rolled_out(scene)
    rollback = scene.tick(roll_back(campaign_id=campaign.pk, actor="ana", now=scene.now))
    update = rollback.node_updates.get(node=scene.fleet[0])
    Delivery.objects.filter(reference=update.pk).update(state="failed")
    scene.event(update.node, LinkEventKind.FAILED, reference=update.pk, cause="command-refused")
    scene.drain()
    scene.tick(rollback)
    update.refresh_from_db()
    assert (update.state, update.method) == ("offered", "patch")
    assert Delivery.objects.filter(reference=update.pk, state="waiting", offering__isnull=False).exists()


def test_a_rollback_ends_when_every_node_runs_the_old_image(scene: Scene) -> None:
    campaign = rolled_out(scene)
    rollback = scene.tick(roll_back(campaign_id=campaign.pk, actor="ana", now=scene.now))
    for update in scene.open_updates(rollback):
        scene.delivered(update)
        scene.report(update.node, campaign, NodeState.REVERTED, active=scene.old, standby=scene.new)
    scene.drain()
    scene.tick(rollback, times=3)
    assert rollback.state == "finished"
    assert scene.states(rollback) == {"confirmed": 10}


def test_rolling_back_twice_at_once_is_refused(scene: Scene) -> None:
    campaign = rolled_out(scene)
    scene.tick(roll_back(campaign_id=campaign.pk, actor="ana", now=scene.now))
    with pytest.raises(actions.ActionRefused, match="is going on already"):
        roll_back(campaign_id=campaign.pk, actor="ana", now=scene.now)


def test_rolling_back_a_finished_rollback_is_refused(scene: Scene) -> None:
    campaign = rolled_out(scene)
    rollback = scene.tick(roll_back(campaign_id=campaign.pk, actor="ana", now=scene.now))
    for update in scene.open_updates(rollback):
        scene.confirm(update, scene.old)
    scene.drain()
    scene.tick(rollback, times=3)
    with pytest.raises(actions.ActionRefused, match="is itself a rollback"):
        roll_back(campaign_id=rollback.pk, actor="ana", now=scene.now)
    with pytest.raises(actions.ActionRefused, match="nothing to do"):
        roll_back(campaign_id=campaign.pk, actor="ana", now=scene.now)


def test_rolling_back_a_running_campaign_ends_it_first(scene: Scene) -> None:
    campaign = scene.tick(scene.campaign())
    for update in scene.open_updates(campaign)[:3]:
        scene.confirm(update)
    scene.drain()
    rollback = roll_back(campaign_id=campaign.pk, actor="ana", now=scene.now)
    campaign.refresh_from_db()
    assert campaign.state == "aborted"
    assert scene.states(campaign) == {"confirmed": 3, "cancelled": 7}
    assert rollback.node_updates.count() == 3


def test_a_rollback_whose_reverse_patch_is_still_to_be_built_starts_by_itself_once_it_is(scene: Scene) -> None:
    campaign = rolled_out(scene)
    Patch.objects.all().delete()
    Node.objects.update(standby_digest="")
    rollback = roll_back(campaign_id=campaign.pk, actor="ana", now=scene.now)
    assert rollback.state == "draft"
    build_patches_due(scene.now, limit=100)
    work.tick_all(now=scene.now)
    rollback.refresh_from_db()
    assert (rollback.state, rollback.approved_by) == ("scheduled", "ana")


def test_nodes_whose_previous_image_nobody_here_built_are_left_out_with_the_reason(scene: Scene) -> None:
    Node.objects.filter(pk=scene.fleet[0].pk).update(active_digest="ab" * 32)
    campaign = rolled_out(scene)
    rollback = roll_back(campaign_id=campaign.pk, actor="ana", now=scene.now)
    update = rollback.node_updates.get(node=scene.fleet[0])
    assert (update.state, update.cause) == ("skipped", "no-previous")


def test_rolling_an_old_campaign_back_leaves_nodes_alone_that_run_something_newer(scene: Scene) -> None:
    campaign = rolled_out(scene)
    Node.objects.exclude(pk=scene.fleet[0].pk).update(active_digest="cd" * 32)
    rollback = roll_back(campaign_id=campaign.pk, actor="ana", now=scene.now)
    assert list(rollback.node_updates.values_list("node", flat=True)) == [scene.fleet[0].pk]


def test_a_node_that_has_the_bundle_but_has_not_said_so_is_sent_back_too(scene: Scene) -> None:
    campaign = scene.tick(scene.campaign())
    whole, other = scene.open_updates(campaign)[:2]
    scene.confirm(other)
    scene.drain()
    Delivery.objects.filter(reference=whole.pk).update(state="delivered")
    rollback = roll_back(campaign_id=campaign.pk, actor="ana", now=scene.now)
    assert set(rollback.node_updates.values_list("node", flat=True)) == {whole.node_id, other.node_id}


def test_a_refused_command_with_a_withdrawn_patch_is_offered_again_after_a_pause(scene: Scene) -> None:
    campaign = rolled_out(scene)
    rollback = scene.tick(roll_back(campaign_id=campaign.pk, actor="ana", now=scene.now))
    update = rollback.node_updates.get(node=scene.fleet[0])
    Delivery.objects.filter(reference=update.pk).update(state="failed")
    scene.event(update.node, LinkEventKind.FAILED, reference=update.pk, cause="command-refused")
    scene.drain()
    scene.tick(rollback)
    actions.pause(campaign_id=rollback.pk, actor="olga", now=scene.now)
    actions.resume(campaign_id=rollback.pk, actor="ana", now=scene.now)
    scene.tick(rollback)
    assert Delivery.objects.filter(reference=update.pk, state="waiting").count() == 1
