"""A node that keeps failing is left out of updates until time or a person lets it out."""

from __future__ import annotations

from datetime import timedelta

import pytest

from devices.models import Node
from devices.wire import Cause, NodeState
from fleet.audit.models import AuditEntry
from tests.integration.updates.campaigns.scene import Scene
from updates import selectors
from updates.campaigns import actions, penalties
from updates.campaigns.rollback import roll_back
from updates.models import Campaign


def failed_campaign(scene: Scene, *nodes: Node) -> Campaign:
    """In which these nodes failed; the others run the target already."""
    Node.objects.exclude(pk__in=[node.pk for node in nodes]).update(active_digest=scene.new.digest)
    scene.now += timedelta(days=1)
    campaign = scene.tick(scene.campaign())
    for update in scene.open_updates(campaign):
        scene.delivered(update)
        scene.report(update.node, campaign, NodeState.FAILED, cause=Cause.SELF_TEST_FAILED)
    scene.drain()
    scene.tick(campaign, times=3)
    assert campaign.state == "finished"
    Node.objects.update(active_digest=scene.old.digest)
    return campaign


@pytest.fixture
def boxed_scene(scene: Scene) -> Scene:
    """The first node failed in three campaigns, the second in two; the others never took part."""
    for count in (1, 2, 2):
        failed_campaign(scene, *scene.fleet[:count])
    return scene


def refused(campaign: Campaign) -> dict[str, int]:
    return {one["cause"]: one["nodes"] for one in campaign.plan["refused"]}


def test_a_node_that_failed_in_three_campaigns_is_left_out_with_the_reason(boxed_scene: Scene) -> None:
    campaign = boxed_scene.campaign()
    assert refused(campaign) == {"penalty-box": 1}
    assert "failed 3 times or more within 14 days" in campaign.plan["refused"][0]["reason"]
    assert campaign.node_updates.get(node=boxed_scene.fleet[0]).state == "skipped"


def test_two_failures_are_not_enough(boxed_scene: Scene) -> None:
    assert boxed_scene.fleet[1].pk not in penalties.boxed(now=boxed_scene.now)


def test_time_lets_a_node_out(boxed_scene: Scene) -> None:
    boxed_scene.now += timedelta(days=12, hours=1)
    assert refused(boxed_scene.campaign()) == {}


def test_a_person_lets_a_node_out_and_that_is_written_down(boxed_scene: Scene) -> None:
    node = boxed_scene.fleet[0]
    assert penalties.release(node=node, actor="olga", now=boxed_scene.now)
    assert not penalties.release(node=node, actor="olga", now=boxed_scene.now)
    assert refused(boxed_scene.campaign()) == {}
    entry = AuditEntry.objects.get(action="node.released")
    assert (entry.before, entry.after) == ({"faults": 3}, {"faults": 0})


def test_failures_after_the_release_count_anew(boxed_scene: Scene) -> None:
    penalties.release(node=boxed_scene.fleet[0], actor="olga", now=boxed_scene.now)
    for _ in range(2):
        failed_campaign(boxed_scene, boxed_scene.fleet[0])
    assert boxed_scene.fleet[0].pk not in penalties.boxed(now=boxed_scene.now)


def test_failures_in_a_campaign_that_was_aborted_are_the_versions(boxed_scene: Scene) -> None:
    last = Campaign.objects.latest("pk")
    Campaign.objects.filter(pk=last.pk).update(state="aborted")
    assert penalties.boxed(now=boxed_scene.now) == {}


def test_a_rollback_takes_a_node_whatever_it_did(boxed_scene: Scene) -> None:
    campaign = Campaign.objects.latest("pk")
    Node.objects.filter(pk=boxed_scene.fleet[0].pk).update(active_digest=boxed_scene.new.digest)
    rollback = roll_back(campaign_id=campaign.pk, actor="ana", now=boxed_scene.now)
    assert rollback.node_updates.get(node=boxed_scene.fleet[0]).image is not None


def test_nodes_that_fell_short_and_campaigns_that_stand_still_need_attention(boxed_scene: Scene) -> None:
    stopped = boxed_scene.tick(boxed_scene.campaign())
    actions.pause(campaign_id=stopped.pk, actor="olga", now=boxed_scene.now, reason="Looks odd.")
    found = selectors.needs_attention(now=boxed_scene.now)
    assert [campaign.reason for campaign in found.campaigns] == ["Looks odd."]
    assert [(one.node.endpoint, one.kind, one.faults) for one in found.nodes] == [("node-0000", "penalty-box", 3)]
    assert found.nodes[0].reason.startswith("The new image gave other outputs")


def test_a_node_whose_newest_update_succeeded_needs_no_attention(scene: Scene) -> None:
    campaign = scene.tick(scene.campaign(offer_timeout_s=100))
    scene.tick(campaign, later_s=101)
    assert len(selectors.needs_attention(now=scene.now).nodes) == 10
    assert {one.kind for one in selectors.needs_attention(now=scene.now).nodes} == {"silent"}
    scene.tick(campaign, times=3)
    again = scene.tick(scene.campaign())
    for update in scene.open_updates(again)[:4]:
        scene.confirm(update)
    scene.drain()
    assert selectors.needs_attention(now=scene.now).nodes == []


def test_attention_is_paged_by_key(scene: Scene) -> None:
    campaign = scene.tick(scene.campaign(offer_timeout_s=100))
    scene.tick(campaign, later_s=101)
    first = selectors.needs_attention(now=scene.now, limit=6).nodes
    rest = selectors.needs_attention(now=scene.now, before=first[-1].update.pk, limit=6).nodes
    assert len({one.node.pk for one in first + rest}) == 10
