"""Offers go out while the window is open where the node is; outside it they are taken back and no timer runs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from devices.models import Delivery, LinkEventKind, Node
from tests.integration.updates.campaigns.scene import Scene
from updates.campaigns import actions
from updates.campaigns.terms import PlanRefused

HOUR = 3600
NIGHTLY = {"transfer": [{"start": "22:00", "end": "05:00"}]}
EVENING = datetime(2026, 11, 23, 21, 0, tzinfo=UTC)


@pytest.fixture
def scene(db: None) -> Scene:
    """Half of ten nodes are in Berlin, where it is an hour later."""
    scene = Scene(now=EVENING)
    Node.objects.filter(pk__in=[node.pk for node in scene.fleet[:5]]).update(time_zone="Europe/Berlin")
    return scene


def test_each_node_is_offered_in_its_own_night(scene: Scene) -> None:
    campaign = scene.tick(scene.campaign(windows=NIGHTLY))
    in_berlin = campaign.node_updates.filter(state="offered").values_list("node__time_zone", flat=True)
    assert sorted(in_berlin) == ["Europe/Berlin"] * 5
    scene.tick(campaign, later_s=HOUR)
    assert scene.states(campaign) == {"offered": 10}


def test_offers_that_no_node_has_begun_are_taken_back_when_the_window_closes(scene: Scene) -> None:
    campaign = scene.tick(scene.campaign(windows=NIGHTLY), later_s=HOUR)
    begun = scene.open_updates(campaign)[0]
    scene.event(begun.node, LinkEventKind.PROGRESS, reference=begun.pk, received_bytes=512, total_bytes=5000)
    scene.drain()
    scene.tick(campaign, later_s=8 * HOUR)
    assert scene.states(campaign) == {"transferring": 1, "planned": 9}
    assert Delivery.objects.filter(state="waiting").values_list("reference", flat=True)[0] == begun.pk
    assert set(campaign.node_updates.filter(state="planned").values_list("cause", flat=True)) == {"window-closed"}


def test_the_next_window_offers_again_and_counts_no_attempt(scene: Scene) -> None:
    campaign = scene.tick(scene.campaign(windows=NIGHTLY), later_s=HOUR)
    scene.tick(campaign, later_s=8 * HOUR)
    scene.tick(campaign, later_s=16 * HOUR)
    assert scene.states(campaign) == {"offered": 10}
    assert Delivery.objects.filter(state="waiting").count() == 10
    assert set(campaign.node_updates.values_list("attempts", flat=True)) == {0}


def test_silence_counts_in_open_windows_only(scene: Scene) -> None:
    campaign = scene.tick(scene.campaign(windows=NIGHTLY, offer_timeout_s=10 * HOUR), later_s=HOUR)
    node = campaign.node_updates.get(node=scene.fleet[9])
    assert node.due_at == scene.now + timedelta(hours=10)
    scene.tick(campaign, later_s=7 * HOUR)  # 05:00: seven of ten hours have gone
    scene.tick(campaign, later_s=17 * HOUR)  # 22:00 again
    node.refresh_from_db()
    assert (node.state, node.due_at) == ("offered", scene.now + timedelta(hours=3))
    scene.tick(campaign, later_s=3 * HOUR + 1)
    node.refresh_from_db()
    assert (node.state, node.cause) == ("silent", "no-contact")


def test_a_blackout_date_keeps_everything_back(scene: Scene) -> None:
    windows = {"blackout": [{"from": "2026-11-23", "to": "2026-11-24"}]}
    campaign = scene.tick(scene.campaign(windows=windows), times=2)
    assert scene.states(campaign) == {"planned": 10}
    scene.tick(campaign, later_s=26 * HOUR)
    assert scene.states(campaign) == {"offered": 5, "planned": 5}, "in Berlin the 25th has begun"


def test_an_offer_that_a_pause_withdrew_is_not_handed_over_outside_the_window(scene: Scene) -> None:
    campaign = scene.tick(scene.campaign(windows=NIGHTLY), later_s=HOUR)
    begun = scene.open_updates(campaign)[0]
    scene.event(begun.node, LinkEventKind.PROGRESS, reference=begun.pk, received_bytes=512, total_bytes=5000)
    scene.drain()
    actions.pause(campaign_id=campaign.pk, actor="olga", now=scene.now)
    scene.now += timedelta(hours=8)
    actions.resume(campaign_id=campaign.pk, actor="ana", now=scene.now)
    scene.tick(campaign)
    assert not Delivery.objects.filter(state="waiting").exists()
    scene.tick(campaign, later_s=16 * HOUR)
    assert Delivery.objects.filter(state="waiting").count() == 10


def test_windows_that_never_open_are_refused(scene: Scene) -> None:
    with pytest.raises(PlanRefused, match="No transfer window opens within a year"):
        scene.campaign(windows={"blackout": [{"from": "2026-01-01", "to": "2030-01-01"}]})
    with pytest.raises(PlanRefused, match=r"windows\.transfer\.0\.start: is '22'; give local hours") as caught:
        scene.campaign(windows={"transfer": [{"start": "22", "end": "05:00"}]})
    assert caught.value.field == "windows.transfer.0.start"


def test_the_plan_shows_the_windows_and_its_hash_covers_them(scene: Scene) -> None:
    plain, nightly = scene.campaign(), scene.campaign(windows=NIGHTLY)
    assert nightly.plan["terms"]["windows"] == NIGHTLY
    assert plain.plan["terms"]["windows"] == {}


def test_nodes_are_kept_from_switching_outside_the_activation_window(scene: Scene) -> None:
    campaign = scene.tick(scene.campaign(windows={"activation": [{"start": "22:00", "end": "23:00"}]}))
    held = Delivery.objects.filter(held=True, state="waiting").values_list("node__time_zone", flat=True)
    assert list(held) == [""] * 5, "in Berlin it is ten, elsewhere nine"
    scene.tick(campaign, later_s=HOUR)
    held = Delivery.objects.filter(held=True, state="waiting").values_list("node__time_zone", flat=True)
    assert list(held) == ["Europe/Berlin"] * 5


def test_a_campaign_without_an_activation_window_holds_nothing(scene: Scene) -> None:
    scene.tick(scene.campaign(windows=NIGHTLY), later_s=2 * HOUR)
    assert Delivery.objects.filter(held=False, state="waiting").count() == 10
