"""How many updates are open at once, and which campaign goes first on a node or a free place."""

from __future__ import annotations

import threading
from collections import Counter
from datetime import timedelta

import pytest
from django.db import connection

from devices.links.lorawan.models import NodeRadio
from devices.models import Delivery, Node
from tests.integration.updates.campaigns.scene import Scene
from updates.campaigns import actions, engine, work
from updates.campaigns.fairness import AGING_STEP_S, PATIENCE_S, PRIORITY_HIGHEST
from updates.campaigns.reconcile import reconcile
from updates.campaigns.rollback import roll_back
from updates.campaigns.terms import PlanRefused
from updates.models import Campaign, NodeUpdate
from updates.states import OPEN_STATES


def at_sites(scene: Scene, *sites: str) -> None:
    for node, site in zip(scene.fleet, sites, strict=True):
        Node.objects.filter(pk=node.pk).update(site=site)


def open_at(site: str) -> int:
    return NodeUpdate.objects.filter(state__in=OPEN_STATES, node__site=site).count()


def test_a_campaign_has_no_more_open_updates_than_its_limit(scene: Scene) -> None:
    campaign = scene.tick(scene.campaign(limits={"campaign": 3}), times=3)
    assert scene.states(campaign) == {"offered": 3, "planned": 7}
    scene.confirm(scene.open_updates(campaign)[0])
    scene.drain()
    scene.tick(campaign, times=2)
    assert scene.states(campaign) == {"confirmed": 1, "offered": 3, "planned": 6}


def test_a_limited_campaign_comes_to_its_end(scene: Scene) -> None:
    campaign = scene.tick(scene.campaign(limits={"campaign": 3}))
    for _ in range(4):
        for update in scene.open_updates(campaign):
            scene.confirm(update)
        scene.drain()
        scene.tick(campaign)
    scene.tick(campaign, times=2)
    assert campaign.state == "finished"


def test_each_wave_has_a_limit_of_its_own(scene: Scene) -> None:
    waves = [{"percent": 50, "soak_s": 0}, {"percent": 100, "soak_s": 0}]
    campaign = scene.tick(scene.campaign(waves=waves, limits={"wave": 2}), times=2)
    assert scene.states(campaign) == {"offered": 2, "planned": 8}


def test_a_site_has_no_more_open_updates_than_the_limit_and_another_site_is_not_held_up(scene: Scene) -> None:
    at_sites(scene, *["hall-1"] * 6, *["hall-2"] * 3, "")
    scene.tick(scene.campaign(limits={"site": 2}), times=3)
    assert (open_at("hall-1"), open_at("hall-2"), open_at("")) == (2, 2, 1)


def test_the_limit_of_a_site_counts_the_updates_of_every_campaign(scene: Scene) -> None:
    at_sites(scene, *["hall-1"] * 10)
    first, second = (scene.campaign(limits={"site": 3}, node_filter=half) for half in halves(scene))
    scene.tick(first)
    scene.tick(second)
    assert (open_at("hall-1"), scene.tallies(second)) == (3, {"planned": 5})


def test_a_gateway_has_no_more_open_updates_than_the_limit(scene: Scene) -> None:
    for index, node in enumerate(scene.fleet[:8]):
        NodeRadio.objects.create(
            node=node, at=scene.now, region="EU868", data_rate=5, gateway_id=f"gw-{index % 2}", frame_counter=1
        )
    scene.tick(scene.campaign(limits={"gateway": 3}), times=2)
    opened = NodeUpdate.objects.filter(state__in=OPEN_STATES)
    assert [opened.filter(node__radio__gateway_id=one).count() for one in ("gw-0", "gw-1")] == [3, 3]
    assert opened.filter(node__radio=None).count() == 2, "no gateway is known for these"


def test_any_label_can_group_nodes_that_share_something_the_server_does_not_know(scene: Scene) -> None:
    for index, node in enumerate(scene.fleet[:8]):
        Node.objects.filter(pk=node.pk).update(labels={"cell": f"262-01-{index % 2}"})
    scene.tick(scene.campaign(limits={"label.cell": 2}), times=2)
    cells = NodeUpdate.objects.filter(state__in=OPEN_STATES).values_list("node__labels__cell", flat=True)
    assert Counter(cells) == {"262-01-0": 2, "262-01-1": 2, None: 2}


def test_a_campaign_that_stands_still_keeps_no_place_from_others(scene: Scene) -> None:
    at_sites(scene, *["hall-1"] * 10)
    first, second = (scene.campaign(limits={"site": 2}, node_filter=half) for half in halves(scene))
    scene.tick(first)
    begun = scene.open_updates(first)[0]
    scene.delivered(begun)
    scene.drain()
    actions.pause(campaign_id=first.pk, actor="olga", now=scene.now)
    scene.tick(second)
    assert scene.states(second) == {"offered": 1, "planned": 4}, "what is whole on a node keeps its place"


def test_what_a_pause_withdrew_waits_for_a_place_when_it_goes_on_and_does_not_fall_silent(scene: Scene) -> None:
    at_sites(scene, *["hall-1"] * 10)
    first, second = (scene.campaign(limits={"site": 2}, node_filter=half) for half in halves(scene))
    scene.tick(first)
    actions.pause(campaign_id=first.pk, actor="olga", now=scene.now)
    scene.tick(second)
    actions.resume(campaign_id=first.pk, actor="ana", now=scene.now)
    for _ in range(3):
        scene.tick(first, later_s=20 * 3600)
    waiting = Delivery.objects.filter(state="waiting")
    assert set(waiting.values_list("reference", flat=True)) == {update.pk for update in scene.open_updates(second)}
    assert scene.states(first) == {"offered": 2, "planned": 3}
    for update in scene.open_updates(second):
        scene.confirm(update)
    scene.drain()
    scene.tick(first)
    assert set(waiting.values_list("reference", flat=True)) == {update.pk for update in scene.open_updates(first)}


def halves(scene: Scene) -> list[str]:
    """Two filters, each for one half of the fleet."""
    for index, node in enumerate(scene.fleet):
        Node.objects.filter(pk=node.pk).update(labels={"half": str(index % 2)})
    return ["label.half=0", "label.half=1"]


def test_campaigns_of_one_priority_take_turns_at_a_crowded_site(scene: Scene) -> None:
    at_sites(scene, *["hall-1"] * 10)
    first, second = (scene.campaign(limits={"site": 1}, node_filter=half) for half in halves(scene))
    had = []
    for _ in range(10):
        scene.now = scene.now.replace(minute=scene.now.minute + 1)
        work.tick_all(now=scene.now)
        update = NodeUpdate.objects.select_related("node", "campaign").get(state__in=OPEN_STATES)
        had.append(update.campaign_id)
        scene.confirm(update)
        scene.drain()
    assert had == [first.pk, second.pk] * 5


def test_a_campaign_of_low_priority_gets_its_turn_after_it_has_waited_long(scene: Scene) -> None:
    at_sites(scene, *["hall-1"] * 10)
    low, high = (
        scene.campaign(limits={"site": 1}, node_filter=half, priority=priority, offer_timeout_s=31_536_000)
        for half, priority in zip(halves(scene), (0, PRIORITY_HIGHEST), strict=True)
    )
    had = []
    for _ in range(4):
        work.tick_all(now=scene.now)
        update = NodeUpdate.objects.select_related("node", "campaign").get(state__in=OPEN_STATES)
        had.append(update.campaign_id)
        scene.confirm(update)
        scene.drain()
        scene.now += timedelta(seconds=AGING_STEP_S * 60)
    assert had == [high.pk, high.pk, low.pk, high.pk]


@pytest.mark.django_db(transaction=True)
def test_two_campaigns_that_tick_at_the_same_time_do_not_take_one_place_twice() -> None:
    scene = Scene(nodes=100)
    Node.objects.update(site="hall-1")
    pair = [scene.campaign(limits={"site": 5}, node_filter=half) for half in halves(scene)]
    barrier = threading.Barrier(2)

    def tick(campaign: Campaign) -> None:
        try:
            barrier.wait(timeout=10)
            engine.tick(campaign_id=campaign.pk, now=scene.now)
        finally:
            connection.close()

    threads = [threading.Thread(target=tick, args=(campaign,)) for campaign in pair]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert open_at("hall-1") == 5
    assert reconcile() == []


def test_a_newer_campaign_of_higher_priority_takes_over_offers_that_no_node_has_begun(scene: Scene) -> None:
    older = scene.tick(scene.campaign())
    begun, *_ = scene.open_updates(older)
    scene.event(begun.node, "progress", reference=begun.pk, received_bytes=512, total_bytes=5000)  # type: ignore[arg-type]
    scene.drain()
    newer = scene.tick(scene.campaign(priority=80))
    assert scene.states(newer) == {"planned": 10}
    scene.tick(older)
    scene.tick(newer)
    assert scene.states(older) == {"cancelled": 9, "transferring": 1}
    assert set(older.node_updates.filter(state="cancelled").values_list("cause", flat=True)) == {"superseded"}
    assert scene.states(newer) == {"offered": 9, "planned": 1}
    assert Delivery.objects.filter(reference__in=older.node_updates.values("pk"), state="waiting").count() == 1


def test_what_an_older_campaign_has_only_planned_is_superseded_by_a_newer_one_that_has_the_node(scene: Scene) -> None:
    waves = [{"percent": 50, "soak_s": 0}, {"percent": 100, "soak_s": 0}]
    older = scene.tick(scene.campaign(waves=waves, limits={"campaign": 1}))
    newer = scene.tick(scene.campaign())
    assert scene.states(newer) == {"offered": 9, "planned": 1}
    scene.confirm(scene.open_updates(older)[0])
    scene.drain()
    scene.tick(older, times=2)
    assert scene.states(older)["cancelled"] == 4, "a node refuses the lower sequence, so it is not offered"


def test_a_newer_campaign_of_lower_priority_leaves_planned_nodes_alone_but_not_for_ever(scene: Scene) -> None:
    older = scene.tick(scene.campaign(limits={"campaign": 1}, priority=90, offer_timeout_s=31_536_000))
    newer = scene.tick(scene.campaign(priority=10, offer_timeout_s=31_536_000))
    assert scene.states(newer) == {"planned": 10}
    scene.tick(newer, later_s=PATIENCE_S - 1)
    assert scene.states(newer) == {"planned": 10}
    scene.tick(newer, later_s=2)
    assert scene.states(newer) == {"offered": 9, "planned": 1}
    assert scene.states(older) == {"offered": 1, "planned": 9}


def test_a_campaign_that_stands_still_does_not_hold_its_nodes_back_from_a_newer_one(scene: Scene) -> None:
    older = scene.tick(scene.campaign(priority=90))
    actions.pause(campaign_id=older.pk, actor="olga", now=scene.now)
    newer = scene.tick(scene.campaign(priority=10))
    scene.tick(older)
    scene.tick(newer)
    assert (scene.states(older), scene.states(newer)) == ({"cancelled": 10}, {"offered": 10})


def test_an_older_campaign_never_takes_a_node_from_a_newer_one(scene: Scene) -> None:
    older = scene.campaign(priority=PRIORITY_HIGHEST, starts_at=None)
    scene.tick(older)
    newer = scene.tick(scene.campaign(priority=10))
    scene.tick(older)
    assert (scene.states(older), scene.states(newer)) == ({"offered": 10}, {"planned": 10})


def test_an_offer_is_left_to_newer_campaigns_only_though_an_older_one_has_the_higher_priority(scene: Scene) -> None:
    oldest = scene.tick(scene.campaign(limits={"campaign": 1}, priority=90, offer_timeout_s=31_536_000))
    middle = scene.tick(scene.campaign(priority=10, offer_timeout_s=31_536_000))
    scene.tick(middle, later_s=PATIENCE_S + 1)
    held = scene.open_updates(oldest)[0].node
    scene.tick(scene.campaign(priority=95, node_filter=f"endpoint:{held.endpoint}"))
    scene.tick(middle)
    assert scene.states(middle) == {"offered": 9, "planned": 1}


def test_a_rollback_waits_for_no_priority(scene: Scene) -> None:
    campaign = scene.tick(scene.campaign())
    for update in scene.open_updates(campaign):
        scene.confirm(update)
    scene.drain()
    scene.tick(campaign, times=3)
    assert roll_back(campaign_id=campaign.pk, actor="ana", now=scene.now).priority == PRIORITY_HIGHEST


def test_the_plan_says_which_campaigns_want_its_nodes_and_who_goes_first(scene: Scene) -> None:
    older = scene.tick(scene.campaign())
    newer = scene.campaign(priority=80)
    (conflict,) = newer.plan["conflicts"]
    assert (conflict["campaign"], conflict["nodes"]) == (older.pk, 10)
    assert "takes over offers that nodes have not begun" in conflict["rule"]
    assert newer.plan["terms"]["priority"] == 80


@pytest.mark.parametrize(
    ("terms", "field", "message"),
    [
        ({"limits": {"hall": 3}}, "limits.hall", "is unknown; known are campaign, gateway, label.<key>, site, wave"),
        ({"limits": {"label.": 3}}, "limits.label.", "is unknown; known are"),
        ({"limits": {f"label.{one}": 3 for one in range(9)}}, "limits", "has 9; give at most 8"),
        ({"limits": {"site": 0}}, "limits.site", "is 0; give a whole number from 1"),
        ({"priority": 101}, "priority", "Give a whole number from 0 to 100"),
        ({"maximum_attempts": 0}, "maximum_attempts", "from 1 to 10"),
        ({"membership": "open"}, "membership", "Give fixed or dynamic"),
        ({"end_behaviour": "stop"}, "end_behaviour", "Give finish or cancel"),
    ],
)
def test_terms_that_make_no_sense_are_refused_by_name_and_store_nothing(
    scene: Scene, terms: dict[str, object], field: str, message: str
) -> None:
    with pytest.raises(PlanRefused, match=message) as caught:
        scene.campaign(**terms)
    assert caught.value.field == field
    assert not Campaign.objects.exists()
