"""When silence counts: by the campaign's timers, and later for nodes that seldom speak."""

from __future__ import annotations

from datetime import timedelta

import pytest

from devices.models import FirmwareBuild, LinkEventKind, Node, NodePresence
from tests.integration.updates.campaigns.scene import Scene
from updates.campaigns import actions
from updates.models import NodeUpdate

HOUR, DAY = 3600, 86_400


def speaks_every(scene: Scene, index: int, seconds: float) -> None:
    NodePresence.objects.create(node=scene.fleet[index], last_seen_at=scene.now, report_interval_s=seconds)


@pytest.mark.parametrize(
    ("interval_s", "deadline"),
    [
        (None, timedelta(hours=48)),
        (HOUR, timedelta(hours=48)),
        (2 * DAY, timedelta(days=6)),
        (20 * DAY, timedelta(days=30)),
    ],
)
def test_an_offer_waits_three_of_the_nodes_intervals_within_two_and_thirty_days(
    scene: Scene, interval_s: float | None, deadline: timedelta
) -> None:
    if interval_s:
        speaks_every(scene, 0, interval_s)
    campaign = scene.tick(scene.campaign())
    assert campaign.node_updates.get(node=scene.fleet[0]).due_at == scene.now + deadline


def test_a_node_that_speaks_every_other_day_is_not_silent_after_a_day_of_trial(scene: Scene) -> None:
    speaks_every(scene, 0, 2 * DAY)
    campaign = scene.tick(scene.campaign(progress_timeout_s=DAY))
    slow, quick = campaign.node_updates.get(node=scene.fleet[0]), campaign.node_updates.get(node=scene.fleet[1])
    for update in (slow, quick):
        scene.delivered(update)
    scene.drain()
    scene.tick(campaign, later_s=DAY + 1)
    slow.refresh_from_db(), quick.refresh_from_db()
    assert (slow.state, quick.state, quick.cause) == ("staged", "silent", "no-progress")


def test_progress_counts_the_rhythm_anew(scene: Scene) -> None:
    speaks_every(scene, 0, 2 * DAY)
    campaign = scene.tick(scene.campaign(progress_timeout_s=DAY))
    update = campaign.node_updates.get(node=scene.fleet[0])
    for received in (512, 1024):
        scene.now += timedelta(hours=5)
        scene.event(
            scene.fleet[0], LinkEventKind.PROGRESS, reference=update.pk, received_bytes=received, total_bytes=5000
        )
        scene.drain()
    update.refresh_from_db()
    assert update.due_at == scene.now + timedelta(days=6)


def says_it_received(scene: Scene, update: NodeUpdate, *counts: int) -> None:
    for received in counts:
        scene.event(update.node, LinkEventKind.PROGRESS, reference=update.pk, received_bytes=received, total_bytes=5000)
    scene.drain()
    update.refresh_from_db()


def test_a_node_that_pulls_the_first_block_again_and_again_makes_no_progress(scene: Scene) -> None:
    campaign = scene.tick(scene.campaign(progress_timeout_s=DAY))
    update = scene.open_updates(campaign)[0]
    says_it_received(scene, update, 512, 1024)
    due = update.due_at
    for _ in range(3):
        scene.now += timedelta(hours=6)
        says_it_received(scene, update, 512, 1024)
    assert update.due_at == due
    scene.tick(campaign, later_s=6 * HOUR + 1)
    update.refresh_from_db()
    assert (update.state, update.cause) == ("silent", "no-progress")


def test_a_session_that_is_set_up_anew_begins_from_nothing(scene: Scene) -> None:
    campaign = scene.tick(scene.campaign(progress_timeout_s=DAY))
    update = scene.open_updates(campaign)[0]
    says_it_received(scene, update, 4096)
    scene.now += timedelta(hours=20)
    says_it_received(scene, update, 0)
    scene.now += timedelta(hours=20)
    says_it_received(scene, update, 512)
    assert (update.received_bytes, update.due_at) == (512, scene.now + timedelta(days=1))


def test_a_transfer_that_a_pause_withdrew_begins_from_nothing(scene: Scene) -> None:
    campaign = scene.tick(scene.campaign(progress_timeout_s=DAY))
    update = scene.open_updates(campaign)[0]
    says_it_received(scene, update, 4096)
    actions.pause(campaign_id=campaign.pk, actor="olga", now=scene.now)
    actions.resume(campaign_id=campaign.pk, actor="ana", now=scene.now)
    scene.tick(campaign)
    scene.now += timedelta(hours=20)
    says_it_received(scene, update, 512)
    assert (update.received_bytes, update.due_at) == (512, scene.now + timedelta(days=1))


def test_what_no_link_can_carry_any_more_falls_silent_though_it_is_tried_again(scene: Scene) -> None:
    FirmwareBuild.objects.update(decoder_profile="s")
    campaign = scene.tick(scene.campaign(full_image_allowed=False, offer_timeout_s=DAY))
    actions.pause(campaign_id=campaign.pk, actor="olga", now=scene.now)
    without_decoder = FirmwareBuild.objects.create(name="fw-2", io_hash="00c0ffee", operators=["CONV_2D"])
    node = scene.fleet[0]
    Node.objects.filter(pk=node.pk).update(firmware_build=without_decoder)
    actions.resume(campaign_id=campaign.pk, actor="ana", now=scene.now)
    scene.tick(campaign, later_s=DAY / 2)
    scene.tick(campaign, later_s=DAY)
    assert campaign.node_updates.get(node=node).state == "silent"


def test_fleet_time_that_runs_faster_shortens_timers_but_not_intervals_measured_on_the_wall(
    scene: Scene, settings: object
) -> None:
    settings.TIME_SCALE = 60.0  # type: ignore[attr-defined]
    speaks_every(scene, 0, HOUR)
    speaks_every(scene, 1, 2 * DAY)
    campaign = scene.tick(scene.campaign())
    due = [campaign.node_updates.get(node=node).due_at - scene.now for node in scene.fleet[:3]]
    assert due == [timedelta(hours=3), timedelta(hours=12), timedelta(minutes=48)]


def test_what_is_whole_on_a_node_may_fall_silent_while_the_campaign_is_paused(scene: Scene) -> None:
    campaign = scene.tick(scene.campaign(progress_timeout_s=DAY))
    staged = scene.open_updates(campaign)[0]
    scene.delivered(staged)
    scene.drain()
    actions.pause(campaign_id=campaign.pk, actor="olga", now=scene.now)
    scene.tick(campaign, later_s=10 * DAY)
    assert scene.states(campaign) == {"silent": 1, "offered": 9}
