"""Reconcile finds what does not add up, and finds nothing where all is well."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone

from devices.wire import Cause, NodeState
from tests import factories
from tests.integration.updates.campaigns.scene import Scene
from updates.campaigns.reconcile import reconcile
from updates.models import NodeUpdate, Tally, UpdateEvent


def test_a_campaign_with_every_kind_of_end_leaves_the_books_right(scene: Scene) -> None:
    campaign = scene.tick(scene.campaign(offer_timeout_s=100))
    confirmed, failed, *_ = scene.open_updates(campaign)
    scene.confirm(confirmed)
    scene.delivered(failed)
    scene.report(failed.node, campaign, NodeState.FAILED, cause=Cause.SELF_TEST_FAILED)
    scene.drain()
    scene.tick(campaign, times=3, later_s=101)
    assert campaign.state == "finished"
    assert reconcile() == []


@pytest.mark.usefixtures("books_broken_on_purpose")
def test_a_wrong_tally_is_found(scene: Scene) -> None:
    campaign = scene.tick(scene.campaign())
    Tally.objects.filter(wave__campaign=campaign, state="offered").update(count=9)
    assert reconcile() == [f"Wave {campaign.waves.get().pk} counts 9 node updates as offered, there are 10."]


@pytest.mark.usefixtures("books_broken_on_purpose")
def test_a_state_that_no_event_explains_is_found(scene: Scene) -> None:
    campaign = scene.tick(scene.campaign())
    update = scene.open_updates(campaign)[0]
    NodeUpdate.objects.filter(pk=update.pk).update(state="staged")
    assert f"Node update {update.pk} is staged, its last event says offered." in reconcile()
    UpdateEvent.objects.filter(node_update_id=update.pk).delete()
    assert f"Node update {update.pk} is staged and no event says how it came there." in reconcile()


@pytest.mark.usefixtures("books_broken_on_purpose")
def test_a_first_event_that_is_missing_is_found(scene: Scene) -> None:
    campaign = scene.tick(scene.campaign())
    update = scene.open_updates(campaign)[0]
    scene.confirm(update)
    scene.drain()
    first, second, *_ = UpdateEvent.objects.filter(node_update_id=update.pk).order_by("id")
    first.delete()
    assert reconcile() == [f"Event {second.pk} is the first of node update {update.pk} and says that it was offered."]


@pytest.mark.usefixtures("books_broken_on_purpose")
def test_a_node_that_was_sent_something_before_its_wave_opened_is_found(scene: Scene) -> None:
    campaign = scene.tick(scene.campaign())
    campaign.waves.update(state="waiting")
    update = scene.open_updates(campaign)[0]
    assert f"Node update {update.pk} is offered, yet its wave has not opened." in reconcile()


@pytest.mark.usefixtures("books_broken_on_purpose")
def test_a_state_of_a_campaign_that_no_move_led_to_is_found(scene: Scene) -> None:
    campaign = scene.tick(scene.campaign())
    campaign.moves.filter(wave_index=None).latest("id").delete()
    assert reconcile() == [f"Campaign {campaign.pk} is running, its last move led to scheduled."]


@pytest.mark.usefixtures("books_broken_on_purpose")
def test_the_check_for_two_open_updates_sees_what_the_index_forbids(scene: Scene) -> None:
    scene.tick(scene.campaign())
    second = scene.tick(scene.campaign())
    with connection.cursor() as cursor:
        cursor.execute("DROP INDEX one_open_update_a_node")
    NodeUpdate.objects.filter(campaign=second, node=scene.fleet[0]).update(state="offered")
    assert f"Node {scene.fleet[0].pk} has 2 open updates." in reconcile()


HOUR = timedelta(hours=1)


@pytest.mark.usefixtures("books_broken_on_purpose")
@pytest.mark.parametrize(
    ("fields", "lease", "said"),
    [
        ({"state": "building"}, None, "Version {0} is being built and nobody holds a lease."),
        ({"state": "building"}, -2 * HOUR, "Version {0} waits for a worker since its lease ran out at {1}."),
        ({"judge_again": True}, -2 * HOUR, "Version {0} waits for a worker since its lease ran out at {1}."),
        ({}, HOUR, "Version {0} ended as ready and still holds a lease."),
        (
            {"state": "refused", "refusal": {"code": "crashed"}},
            HOUR,
            "Version {0} ended as refused and still holds a lease.",
        ),
        ({"state": "building"}, HOUR, None),
        ({"judge_again": True}, HOUR, None),
    ],
)
@pytest.mark.django_db
def test_a_lease_of_a_version_is_found_where_it_is_stuck_and_not_where_a_worker_holds_it(
    fields: dict[str, Any], lease: timedelta | None, said: str | None
) -> None:
    version = factories.make_version()
    until = None if lease is None else timezone.now() + lease
    type(version).objects.filter(pk=version.pk).update(lease_until=until, **fields)
    assert reconcile() == ([] if said is None else [said.format(version.pk, until)])
