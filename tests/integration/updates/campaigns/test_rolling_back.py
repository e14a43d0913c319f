"""The way back: by command where the previous slot is whole, else by patch."""

from __future__ import annotations

import pytest

from devices.models import Delivery, LinkEventKind, Node
from devices.wire import NodeState
from tests.integration.updates.campaigns.scene import Scene
from updates.campaigns import actions
from updates.campaigns.rollback import roll_back
from updates.models import Campaign


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
