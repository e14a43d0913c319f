"""A scheduled end: nothing is offered from then on, and what is open is finished or withdrawn."""

from __future__ import annotations

from datetime import timedelta

import pytest

from devices.models import Delivery
from tests.integration.updates.campaigns.scene import Scene
from updates.campaigns.terms import PlanRefused

WAVES = [{"percent": 50, "soak_s": 0}, {"percent": 100, "soak_s": 0}]


def ending(scene: Scene, behaviour: str) -> object:
    return scene.campaign(waves=WAVES, ends_at=scene.now + timedelta(hours=1), end_behaviour=behaviour)


def test_at_its_end_a_campaign_finishes_what_is_open_and_offers_nothing_more(scene: Scene) -> None:
    campaign = scene.tick(ending(scene, "finish"))
    scene.tick(campaign, later_s=3601)
    assert (campaign.state, scene.states(campaign)) == ("running", {"offered": 5, "cancelled": 5})
    for update in scene.open_updates(campaign):
        scene.confirm(update)
    scene.drain()
    scene.tick(campaign)
    assert (campaign.state, scene.states(campaign)) == ("finished", {"confirmed": 5, "cancelled": 5})
    assert campaign.reason == "Its end was reached at 2026-11-23 13:00 UTC."
    assert set(campaign.node_updates.filter(state="cancelled").values_list("cause", flat=True)) == {"end-reached"}


def test_at_its_end_a_campaign_withdraws_what_is_open_where_that_is_wanted(scene: Scene) -> None:
    campaign = scene.tick(ending(scene, "cancel"))
    scene.tick(campaign, times=2, later_s=3601)
    assert (campaign.state, scene.states(campaign)) == ("finished", {"cancelled": 10})
    assert not Delivery.objects.filter(state="waiting").exists()


def test_a_minute_before_its_end_it_still_offers(scene: Scene) -> None:
    campaign = scene.tick(ending(scene, "cancel"))
    for update in scene.open_updates(campaign):
        scene.confirm(update)
    scene.drain()
    scene.tick(campaign, times=3, later_s=3540)
    assert scene.states(campaign) == {"confirmed": 5, "offered": 5}


def test_an_end_before_the_start_is_refused(scene: Scene) -> None:
    with pytest.raises(PlanRefused, match="Give a time after the start"):
        scene.campaign(starts_at=scene.now + timedelta(days=2), ends_at=scene.now + timedelta(days=1))
