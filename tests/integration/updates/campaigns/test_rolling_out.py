"""A campaign from plan to finish, and what stops it."""

from __future__ import annotations

import pytest

from devices.models import UNPROVED, Delivery, LinkEvent, LinkEventKind, Node
from devices.wire import Cause, NodeState
from tests.integration.updates.campaigns.scene import ALL_AT_ONCE, Scene
from updates.campaigns import actions, plan
from updates.models import UpdateEvent


def test_a_campaign_confirms_every_node_and_finishes(scene: Scene) -> None:
    campaign = scene.tick(scene.campaign())
    for update in scene.open_updates(campaign):
        scene.confirm(update)
    scene.drain()
    scene.tick(campaign, times=3)
    assert campaign.state == "finished"
    assert scene.states(campaign) == {"confirmed": 10}
    assert scene.tallies(campaign) == {"confirmed": 10}
    scene.fleet[0].refresh_from_db()
    assert scene.fleet[0].active_digest == scene.new.digest


def test_the_next_wave_opens_only_after_the_soak(scene: Scene) -> None:
    waves = [{"percent": 20, "soak_s": 60}, {"percent": 100, "soak_s": 0}]
    campaign = scene.tick(scene.campaign(waves=waves))
    assert scene.states(campaign) == {"offered": 2, "planned": 8}
    for update in scene.open_updates(campaign):
        scene.confirm(update)
    scene.drain()
    scene.tick(campaign, times=2, later_s=1)
    scene.tick(campaign, later_s=58)
    assert scene.states(campaign) == {"confirmed": 2, "planned": 8}
    scene.tick(campaign, times=2, later_s=2)
    assert scene.states(campaign) == {"confirmed": 2, "offered": 8}


def test_each_offer_is_handed_to_the_link_once_however_often_the_engine_ticks(scene: Scene) -> None:
    campaign = scene.tick(scene.campaign(), times=4)
    assert Delivery.objects.count() == 10
    assert set(campaign.node_updates.values_list("attempts", flat=True)) == {0}


def test_an_offer_carries_a_patch_for_the_base_that_nodes_hold_and_the_full_image(scene: Scene) -> None:
    scene.tick(scene.campaign())
    bundles = Delivery.objects.first().offering.bundles.select_related("blob").order_by("base_digest")
    assert [bundle.base_digest for bundle in bundles] == ["", scene.old.digest]
    assert bundles[1].blob.size < bundles[0].blob.size / 10


def test_failures_above_the_limit_halt_the_campaign_and_withdraw_open_offers(scene: Scene) -> None:
    gate = {"maximum_failure_percent": 10, "minimum_sample": 4}
    campaign = scene.tick(scene.campaign(gate=gate))
    updates = scene.open_updates(campaign)
    for update in updates[:4]:
        scene.delivered(update)
        scene.report(update.node, campaign, NodeState.FAILED, cause=Cause.SELF_TEST_FAILED)
    scene.drain()
    scene.tick(campaign)
    assert campaign.state == "halted"
    assert "4 of 4 updates failed" in campaign.reason
    assert set(campaign.node_updates.filter(state="failed").values_list("cause", flat=True)) == {"self-test-failed"}
    assert not Delivery.objects.filter(state="waiting").exists()


def test_one_failure_less_than_the_sample_does_not_halt(scene: Scene) -> None:
    campaign = scene.tick(scene.campaign(gate={"maximum_failure_percent": 10, "minimum_sample": 4}))
    for update in scene.open_updates(campaign)[:3]:
        scene.delivered(update)
        scene.report(update.node, campaign, NodeState.FAILED, cause=Cause.SELF_TEST_FAILED)
    scene.drain()
    scene.tick(campaign)
    assert campaign.state == "running"


def test_too_small_a_sample_holds_the_campaign_for_a_person_whose_word_stands(scene: Scene) -> None:
    waves = [{"percent": 20, "soak_s": 0}, {"percent": 100, "soak_s": 0}]
    campaign = scene.tick(scene.campaign(waves=waves, gate={"minimum_sample": 5}))
    for update in scene.open_updates(campaign):
        scene.confirm(update)
    scene.drain()
    scene.tick(campaign)
    assert campaign.state == "paused"
    assert "the gate needs 5" in campaign.reason
    actions.resume(campaign_id=campaign.pk, actor="ana", now=scene.now)
    scene.tick(campaign, times=3)
    assert scene.states(campaign) == {"confirmed": 2, "offered": 8}
    assert campaign.waves.get(index=0).verdict["accepted"]["by"] == "ana"


def test_a_node_that_does_not_come_in_time_is_silent_and_its_late_report_counts(scene: Scene) -> None:
    campaign = scene.tick(scene.campaign(offer_timeout_s=100))
    update = scene.open_updates(campaign)[0]
    scene.tick(campaign, later_s=101)
    assert scene.states(campaign) == {"silent": 10}
    scene.event(update.node, LinkEventKind.HOLDS, digest=scene.new.digest)
    scene.drain()
    assert scene.states(campaign) == {"silent": 9, "confirmed": 1}
    assert scene.tallies(campaign) == {"silent": 9, "confirmed": 1}


def test_a_node_that_claims_success_and_runs_the_old_image_has_failed(scene: Scene) -> None:
    campaign = scene.tick(scene.campaign())
    update = scene.open_updates(campaign)[0]
    scene.delivered(update)
    scene.event(update.node, LinkEventKind.HOLDS, digest=scene.old.digest)
    scene.report(update.node, campaign, NodeState.CONFIRMED, active=scene.new, standby=scene.old)
    scene.drain()
    update.refresh_from_db()
    assert (update.state, update.cause) == ("failed", "claims-success")


def test_doubled_late_and_reordered_reports_break_nothing(scene: Scene) -> None:
    campaign = scene.tick(scene.campaign())
    update = scene.open_updates(campaign)[0]
    for _ in range(2):
        scene.confirm(update)
        scene.report(update.node, campaign, NodeState.STAGED)
        scene.report(update.node, campaign, NodeState.TRIAL)
    scene.drain()
    update.refresh_from_db()
    assert update.state == "confirmed"
    transitions = UpdateEvent.objects.filter(node_update_id=update.pk).values_list("to_state", flat=True)
    assert sorted(transitions) == ["confirmed", "offered", "staged"]


def test_the_end_of_an_earlier_campaign_does_not_end_this_one(scene: Scene) -> None:
    campaign = scene.tick(scene.campaign())
    update = scene.open_updates(campaign)[0]
    scene.report(update.node, campaign, NodeState.FAILED, cause=Cause.FLASH_FAILURE, sequence=campaign.sequence - 1)
    scene.drain()
    update.refresh_from_db()
    assert update.state == "offered"


def test_a_campaign_does_not_start_unless_its_plan_as_it_is_was_approved(scene: Scene) -> None:
    campaign = plan.create_campaign(
        name="x", version=scene.new.version, node_filter="", waves=ALL_AT_ONCE, gate={}, starts_at=None,
        actor="olga", now=scene.now,
    )  # fmt: skip
    with pytest.raises(actions.ActionRefused, match="not approved"):
        actions.start(campaign_id=campaign.pk, actor="olga", now=scene.now)
    with pytest.raises(actions.ActionRefused, match="being built"):
        actions.approve(campaign_id=campaign.pk, plan_hash=campaign.plan_hash, actor="ana", now=scene.now)


def test_starting_twice_is_refused(scene: Scene) -> None:
    campaign = scene.campaign()
    scene.tick(campaign)
    with pytest.raises(actions.ActionRefused, match="is running"):
        actions.start(campaign_id=campaign.pk, actor="ana", now=scene.now)


def test_a_paused_campaign_offers_nothing_and_goes_on_where_it_was(scene: Scene) -> None:
    campaign = scene.tick(scene.campaign())
    actions.pause(campaign_id=campaign.pk, actor="olga", now=scene.now)
    assert set(Delivery.objects.values_list("state", flat=True)) == {"cancelled"}
    scene.tick(campaign, times=2)
    assert not Delivery.objects.filter(state="waiting").exists()
    actions.resume(campaign_id=campaign.pk, actor="ana", now=scene.now)
    scene.tick(campaign, times=2)
    assert Delivery.objects.filter(state="waiting").count() == 10


def test_a_halt_takes_back_transfers_under_way_too(scene: Scene) -> None:
    campaign = scene.tick(scene.campaign())
    update = scene.open_updates(campaign)[0]
    Delivery.objects.filter(reference=update.pk).update(state="transferring")
    scene.event(update.node, LinkEventKind.PROGRESS, reference=update.pk, received_bytes=512, total_bytes=5000)
    scene.drain()
    actions.pause(campaign_id=campaign.pk, actor="olga", now=scene.now)
    assert set(Delivery.objects.values_list("state", flat=True)) == {"cancelled"}


def test_an_aborted_campaign_leaves_no_update_open(scene: Scene) -> None:
    waves = [{"percent": 20, "soak_s": 0}, {"percent": 100, "soak_s": 0}]
    campaign = scene.tick(scene.campaign(waves=waves))
    actions.abort(campaign_id=campaign.pk, actor="ana", now=scene.now)
    assert scene.states(campaign) == {"cancelled": 10}
    assert scene.tallies(campaign) == {"cancelled": 10}


def test_a_scheduled_campaign_waits_for_its_time(scene: Scene) -> None:
    later = scene.now.replace(hour=13)
    campaign = scene.tick(scene.campaign(starts_at=later))
    assert campaign.state == "scheduled"
    scene.tick(campaign, later_s=3600)
    assert campaign.state == "running"


def test_a_newer_campaign_waits_for_a_node_that_another_one_holds(scene: Scene) -> None:
    first = scene.tick(scene.campaign())
    second = scene.tick(scene.campaign(), times=2)
    assert scene.states(second) == {"planned": 10}
    for update in scene.open_updates(first):
        scene.delivered(update)
        scene.report(update.node, first, NodeState.FAILED, cause=Cause.SELF_TEST_FAILED)
    scene.drain()
    scene.tick(second)
    assert scene.states(second) == {"offered": 10}


def test_what_a_node_has_said_and_nobody_has_drained_is_not_silence(scene: Scene) -> None:
    campaign = scene.tick(scene.campaign(offer_timeout_s=100))
    update = scene.open_updates(campaign)[0]
    scene.event(update.node, LinkEventKind.PROGRESS, reference=update.pk, received_bytes=512, total_bytes=5000)
    scene.tick(campaign, later_s=101)
    assert scene.states(campaign) == {"silent": 9, "offered": 1}


def test_a_node_that_was_given_up_and_goes_on_is_offered_the_bundle_again(scene: Scene) -> None:
    waves = [{"percent": 50, "soak_s": 0}, {"percent": 100, "soak_s": 0}]
    campaign = scene.tick(scene.campaign(waves=waves, offer_timeout_s=100))
    update, *others = scene.open_updates(campaign)
    for other in others:
        scene.confirm(other)
    scene.drain()
    scene.tick(campaign, later_s=101)
    scene.event(update.node, LinkEventKind.PROGRESS, reference=update.pk, received_bytes=512, total_bytes=5000)
    scene.drain()
    scene.tick(campaign)
    update.refresh_from_db()
    assert update.state == "transferring"
    assert Delivery.objects.filter(reference=update.pk, state="waiting").count() == 1


def test_going_on_after_a_halt_is_no_leave_for_more_of_the_same(scene: Scene) -> None:
    campaign = scene.tick(scene.campaign(gate={"maximum_failure_percent": 10, "minimum_sample": 4}))
    updates = scene.open_updates(campaign)
    for update in updates[:4]:
        scene.delivered(update)
        scene.report(update.node, campaign, NodeState.FAILED, cause=Cause.SELF_TEST_FAILED)
    scene.drain()
    scene.tick(campaign)
    actions.resume(campaign_id=campaign.pk, actor="ana", now=scene.now)
    scene.tick(campaign, times=2)
    assert campaign.state == "running"
    for update in updates[4:8]:
        scene.delivered(update)
        scene.report(update.node, campaign, NodeState.FAILED, cause=Cause.SELF_TEST_FAILED)
    scene.drain()
    scene.tick(campaign)
    assert campaign.state == "halted"
    assert campaign.reason.startswith("Wave 1: 4 of 4 updates failed")


def test_a_long_pause_is_not_taken_for_the_silence_of_the_nodes(scene: Scene) -> None:
    campaign = scene.tick(scene.campaign(offer_timeout_s=100))
    actions.pause(campaign_id=campaign.pk, actor="olga", now=scene.now)
    scene.tick(campaign, later_s=10_000)
    actions.resume(campaign_id=campaign.pk, actor="ana", now=scene.now)
    scene.tick(campaign)
    assert scene.states(campaign) == {"offered": 10}


def test_a_campaign_that_starts_later_wins_over_one_that_ran_since_it_was_planned(scene: Scene) -> None:
    planned_first = scene.campaign(starts_at=scene.now.replace(hour=14))
    hotfix = scene.tick(scene.campaign())
    scene.tick(planned_first, later_s=3 * 3600)
    assert planned_first.sequence > hotfix.sequence


def test_an_update_that_has_ended_leaves_nothing_for_its_link_to_bring(scene: Scene) -> None:
    campaign = scene.tick(scene.campaign())
    update = scene.open_updates(campaign)[0]
    scene.event(update.node, LinkEventKind.PROGRESS, reference=update.pk, received_bytes=512, total_bytes=5000)
    scene.report(update.node, campaign, NodeState.REJECTED, cause=Cause.LOWER_SEQUENCE, sequence=campaign.sequence - 1)
    scene.drain()
    assert Delivery.objects.get(reference=update.pk).state == "cancelled"


def test_a_node_that_goes_on_after_the_campaign_has_finished_is_not_left_open(scene: Scene) -> None:
    campaign = scene.tick(scene.campaign(offer_timeout_s=100))
    late, *others = scene.open_updates(campaign)
    for other in others:
        scene.confirm(other)
    scene.drain()
    scene.tick(campaign, times=3, later_s=101)
    assert campaign.state == "finished"
    scene.report(late.node, campaign, NodeState.RECEIVING)
    scene.drain()
    assert scene.states(campaign) == {"confirmed": 9, "silent": 1}
    scene.event(late.node, LinkEventKind.HOLDS, digest=scene.new.digest)
    scene.drain()
    assert scene.states(campaign) == {"confirmed": 10}


def test_an_old_failure_does_not_end_an_update_that_the_node_never_touched(scene: Scene) -> None:
    campaign = scene.tick(scene.campaign(offer_timeout_s=100))
    update = scene.open_updates(campaign)[0]
    scene.tick(campaign, later_s=101)
    scene.report(update.node, campaign, NodeState.FAILED, cause=Cause.FLASH_FAILURE, sequence=campaign.sequence - 1)
    scene.drain()
    assert scene.states(campaign) == {"silent": 10}


def test_events_of_a_node_that_was_deleted_do_not_stop_the_others(scene: Scene) -> None:
    campaign = scene.tick(scene.campaign())
    gone, update = (
        Node.objects.create(endpoint="gone", link="nbiot", profile=scene.profile),
        scene.open_updates(campaign)[0],
    )
    scene.event(gone, LinkEventKind.REPORT, payload=bytes.fromhex("2000010102"))
    scene.confirm(update)
    gone.delete()
    scene.drain()
    update.refresh_from_db()
    assert update.state == "confirmed"


def test_a_claim_of_success_that_nobody_could_prove_decides_nothing(scene: Scene) -> None:
    campaign = scene.tick(scene.campaign())
    update = scene.open_updates(campaign)[0]
    scene.delivered(update)
    claim = scene.report(update.node, campaign, NodeState.CONFIRMED, active=scene.new, standby=scene.old)
    LinkEvent.objects.filter(pk=claim.pk).update(cause=UNPROVED)
    scene.drain()
    update.refresh_from_db()
    assert update.state == "staged"
