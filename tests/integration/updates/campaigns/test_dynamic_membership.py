"""Nodes that match later join, nodes that no longer match leave, deleted ones leave the counts."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from devices.models import Node
from tests.integration.updates.campaigns.scene import Scene
from updates.campaigns import membership
from updates.campaigns.waves import wave_of
from updates.models import Campaign, UpdateEvent

WAVES = [{"percent": 20, "soak_s": 0}, {"percent": 100, "soak_s": 0}]


def new_nodes(scene: Scene, number: int, **fields: Any) -> list[Node]:
    values = {"link": "nbiot", "profile": scene.profile, "firmware_build": scene.firmware, "site": "hall-1"}
    values |= {"active_digest": scene.old.digest} | fields
    begun = Node.objects.count()
    return Node.objects.bulk_create(
        Node(endpoint=f"new-{index:04d}", **values) for index in range(begun, begun + number)
    )


@pytest.fixture
def campaign(scene: Scene) -> Campaign:
    Node.objects.update(site="hall-1")
    return scene.campaign(node_filter="site:hall-1", membership="dynamic", waves=WAVES)


def test_nodes_that_match_later_join_the_wave_that_their_hash_says(scene: Scene, campaign: Campaign) -> None:
    nodes = new_nodes(scene, 40)
    scene.tick(campaign)
    joined = dict(campaign.node_updates.filter(node__in=nodes).values_list("node_id", "wave__index"))
    assert joined == {node.pk: wave_of(salt=campaign.salt, node_id=node.pk, percents=[20, 100]) for node in nodes}
    assert set(joined.values()) == {0, 1}
    assert sum(scene.tallies(campaign).values()) == 50
    assert UpdateEvent.objects.filter(campaign=campaign, cause="joined", to_state="planned").count() == 40


def test_a_node_that_joins_a_wave_that_has_passed_is_offered_at_once(scene: Scene, campaign: Campaign) -> None:
    scene.tick(campaign)
    for update in scene.open_updates(campaign):
        scene.confirm(update)
    scene.drain()
    scene.tick(campaign, times=3)
    assert campaign.waves.get(index=0).state == "passed"
    nodes = new_nodes(scene, 40)
    scene.tick(campaign)
    states = campaign.node_updates.filter(node__in=nodes).values_list("state", flat=True)
    assert set(states) == {"offered"}


def test_a_fixed_campaign_keeps_the_nodes_of_its_plan(scene: Scene) -> None:
    Node.objects.update(site="hall-1")
    campaign = scene.campaign(node_filter="site:hall-1", waves=WAVES)
    new_nodes(scene, 5)
    Node.objects.filter(pk=scene.fleet[0].pk).update(site="hall-2")
    scene.tick(campaign, times=3)
    assert campaign.node_updates.exclude(state="cancelled").count() == 10


def test_a_node_that_cannot_take_the_image_does_not_join_until_it_can(scene: Scene, campaign: Campaign) -> None:
    (node,) = new_nodes(scene, 1, firmware_build=None)
    scene.tick(campaign)
    assert not campaign.node_updates.filter(node=node).exists()
    Node.objects.filter(pk=node.pk).update(firmware_build=scene.firmware)
    scene.tick(campaign)
    assert campaign.node_updates.filter(node=node).exists()


def test_a_planned_node_that_no_longer_matches_leaves_and_comes_back(scene: Scene, campaign: Campaign) -> None:
    scene.tick(campaign)
    planned = campaign.node_updates.filter(state="planned").select_related("node")[0]
    Node.objects.filter(pk=planned.node_id).update(site="hall-2")
    scene.tick(campaign)
    planned.refresh_from_db()
    assert (planned.state, planned.cause) == ("cancelled", "no-longer-matches")
    Node.objects.filter(pk=planned.node_id).update(site="hall-1")
    scene.tick(campaign)
    planned.refresh_from_db()
    assert (planned.state, planned.cause) == ("planned", "matches-again")


def test_what_is_open_on_a_node_goes_on_though_it_no_longer_matches(scene: Scene, campaign: Campaign) -> None:
    scene.tick(campaign)
    update = scene.open_updates(campaign)[0]
    Node.objects.filter(pk=update.node_id).update(site="hall-2")
    scene.tick(campaign)
    assert campaign.node_updates.get(pk=update.pk).state == "offered"


def test_a_dynamic_campaign_with_an_end_takes_nodes_until_then(scene: Scene) -> None:
    campaign = scene.tick(scene.campaign(membership="dynamic", ends_at=scene.now + timedelta(days=30)))
    for update in scene.open_updates(campaign):
        scene.confirm(update)
    scene.drain()
    scene.tick(campaign, times=4)
    assert campaign.state == "running"
    new_nodes(scene, 3)
    scene.tick(campaign)
    assert scene.states(campaign) == {"confirmed": 10, "offered": 3}
    for update in scene.open_updates(campaign):
        scene.confirm(update)
    scene.drain()
    scene.tick(campaign, times=2, later_s=31 * 86_400)
    assert campaign.state == "finished"


def test_a_tick_looks_at_a_bounded_stretch_and_comes_round(
    scene: Scene, campaign: Campaign, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(membership, "SCAN", 8)
    new_nodes(scene, 20)
    sizes = []
    for _ in range(5):
        scene.tick(campaign)
        sizes.append(campaign.node_updates.count())
    assert sizes == [10, 16, 24, 30, 30]
    Node.objects.filter(pk=scene.fleet[0].pk).update(active_digest="ab" * 32)
    new_nodes(scene, 2)
    scene.tick(campaign, times=4)
    assert campaign.node_updates.count() == 32


def test_joining_takes_as_many_queries_for_two_hundred_nodes_as_for_two(scene: Scene, campaign: Campaign) -> None:
    def queries(number: int) -> int:
        new_nodes(scene, number)
        with CaptureQueriesContext(connection) as captured:
            membership.follow_filter(campaign, now=scene.now)
        campaign.refresh_from_db()
        return len(captured)

    scene.tick(campaign)
    assert queries(200) == queries(2)


def test_a_deleted_node_leaves_the_counts(scene: Scene) -> None:
    campaign = scene.tick(scene.campaign(waves=WAVES))
    update = scene.open_updates(campaign)[0]
    update.node.delete()
    Node.objects.filter(pk__in=[node.pk for node in scene.fleet if node.pk != update.node_id][:4]).delete()
    assert sum(scene.tallies(campaign).values()) == 5
    assert scene.tallies(campaign) == scene.states(campaign)


def test_a_campaign_whose_last_open_node_is_deleted_goes_on(scene: Scene) -> None:
    campaign = scene.tick(scene.campaign(waves=WAVES))
    left, gone = scene.open_updates(campaign)
    scene.confirm(left)
    scene.drain()
    gone.node.delete()
    scene.tick(campaign, times=3)
    assert scene.states(campaign) == {"confirmed": 1, "offered": 8}


def test_a_node_that_came_to_run_the_target_otherwise_is_skipped(scene: Scene) -> None:
    campaign = scene.campaign()
    Node.objects.filter(pk=scene.fleet[0].pk).update(active_digest=scene.new.digest)
    scene.tick(campaign)
    update = campaign.node_updates.get(node=scene.fleet[0])
    assert (update.state, update.cause) == ("skipped", "already-current")


def test_a_node_whose_base_changed_is_offered_all_bundles_and_its_link_picks(scene: Scene) -> None:
    campaign = scene.campaign()
    Node.objects.filter(pk=scene.fleet[0].pk).update(active_digest="ab" * 32)
    scene.tick(campaign)
    delivery = campaign.node_updates.get(node=scene.fleet[0]).node.deliveries.get()
    assert set(delivery.offering.bundles.values_list("base_digest", flat=True)) == {"", scene.old.digest}
