"""Each node gets the patch that its firmware decodes; a patch that fails or is late stops nothing."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from devices.models import Delivery, FirmwareBuild, LinkEventKind, Node
from tests.integration.updates.campaigns.scene import ALL_AT_ONCE, LENIENT, Scene
from updates.campaigns import actions, plan, work
from updates.campaigns.plan import PlanRefused
from updates.campaigns.plan_patches import patch_warnings
from updates.campaigns.preview import preview
from updates.campaigns.rollback import roll_back
from updates.models import Campaign, NodeUpdate, Patch
from updates.patches.bundle import unpack_bundle
from updates.patches.codec import apply_patch
from updates.patches.manifest import read_envelope
from updates.services import build_patches_due

HOUR = 3600


def mixed(scene: Scene) -> dict[str, list[Node]]:
    """Two nodes of each decoder; the last four as they were."""
    found = {}
    for index, decoder in enumerate(("none", "s", "l")):
        build = FirmwareBuild.objects.create(
            name=f"fw-{decoder}", operators=["CONV_2D"], io_hash="00c0ffee", decoder_profile=decoder
        )
        found[decoder] = scene.fleet[2 * index : 2 * index + 2]
        Node.objects.filter(pk__in=[node.pk for node in found[decoder]]).update(firmware_build=build)
    return {**found, "bsdiff": scene.fleet[6:]}


def draft(scene: Scene, **terms: Any) -> Campaign:
    return plan.create_campaign(
        name="1.1 to all", version=scene.new.version, node_filter="", waves=ALL_AT_ONCE, gate=LENIENT, starts_at=None,
        actor="olga", now=scene.now, **terms,
    )  # fmt: skip


def approve_and_start(scene: Scene, campaign: Campaign) -> Campaign:
    plan.refresh_plan(campaign_id=campaign.pk, now=scene.now)
    campaign.refresh_from_db()
    actions.approve(campaign_id=campaign.pk, plan_hash=campaign.plan_hash, actor="ana", now=scene.now)
    return actions.start(campaign_id=campaign.pk, actor="ana", now=scene.now)


def states_of(campaign: Campaign, nodes: list[Node]) -> set[tuple[str, str]]:
    return set(campaign.node_updates.filter(node__in=nodes).values_list("state", "cause"))


def offered_to(update: NodeUpdate) -> dict[str, bytes]:
    offering = Delivery.objects.get(reference=update.pk).offering
    assert offering is not None
    return {one.base_digest: bytes(one.blob.data) for one in offering.bundles.select_related("blob")}


def codec_of(bundle: bytes) -> int:
    from updates.patches.manifest import _read_payload

    return _read_payload(read_envelope(unpack_bundle(bundle).manifest).payload)[6]


def test_each_node_is_offered_the_patch_of_its_decoder_and_it_decodes(scene: Scene) -> None:
    fleet = mixed(scene)
    campaign = scene.tick(scene.campaign())
    old = bytes(scene.old.blob.data)
    expected: dict[str, set[int]] = {"none": {0}, "bsdiff": {0, 1}, "s": {0, 2}, "l": {0, 2, 3}}
    for decoder, nodes in fleet.items():
        bundles = offered_to(campaign.node_updates.get(node=nodes[0]))
        assert set(bundles) == ({""} if decoder == "none" else {"", scene.old.digest})
        assert {codec_of(bundle) for bundle in bundles.values()} <= expected[decoder]
        for bundle in bundles.values():
            payload = unpack_bundle(bundle).payload
            assert apply_patch(codec_of(bundle), old, payload, scene.new.size) == bytes(scene.new.blob.data)


def test_a_plan_asks_for_the_patches_that_its_nodes_decode_and_for_no_others(scene: Scene) -> None:
    draft(scene)
    assert set(Patch.objects.values_list("decoder", flat=True)) == {"bsdiff"}
    assert {patch.direction for patch in Patch.objects.all()} == {"forward", "reverse"}


def test_a_plan_shows_the_size_for_each_decoder(scene: Scene) -> None:
    mixed(scene)
    campaign = draft(scene)
    build_patches_due(scene.now, limit=100)
    plan.refresh_plan(campaign_id=campaign.pk, now=scene.now)
    campaign.refresh_from_db()
    rows = {row["decoder"]: row for row in campaign.plan["bases"]}
    assert {decoder: row["nodes"] for decoder, row in rows.items()} == {"none": 2, "s": 2, "l": 2, "bsdiff": 4}
    assert rows["none"]["patch_bytes"] is None
    for patch in Patch.objects.filter(target=scene.new).select_related("blob"):
        assert patch.blob is not None
        assert rows[patch.decoder]["patch_bytes"] == patch.blob.size
    sent = sum(row["nodes"] * (row["patch_bytes"] or row["full_bytes"]) for row in rows.values())
    assert campaign.plan["bytes_sent"] == sent


def test_a_plan_of_many_nodes_takes_as_many_queries_as_one_of_few(scene: Scene) -> None:
    mixed(scene)

    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            draft(scene)
        Campaign.objects.all().delete()
        return len(captured)

    few = queries()
    for node in list(scene.fleet):
        for index in range(5):
            copy = Node.objects.get(pk=node.pk)
            copy.pk, copy.endpoint = None, f"{node.endpoint}-{index}"
            copy.save(force_insert=True)
    assert queries() == few


def test_a_campaign_waits_for_its_patches_until_the_deadline_and_then_sends_full_images(scene: Scene) -> None:
    campaign = draft(scene, patch_deadline_s=HOUR)
    scene.now += timedelta(seconds=HOUR - 1)
    plan.refresh_plan(campaign_id=campaign.pk, now=scene.now)
    with pytest.raises(actions.ActionRefused, match="still being built"):
        actions.approve(campaign_id=campaign.pk, plan_hash=campaign.plan_hash, actor="ana", now=scene.now)
    scene.now += timedelta(seconds=1)
    campaign = scene.tick(approve_and_start(scene, campaign))
    assert scene.states(campaign) == {"offered": 10}
    assert campaign.plan["bytes_sent"] == campaign.plan["bytes_full"]
    assert set(offered_to(scene.open_updates(campaign)[0])) == {""}
    assert any("forward patch late: the full image goes" in one for one in patch_warnings(campaign, now=scene.now))


def test_a_running_campaign_waits_for_a_reverse_patch_until_the_deadline(scene: Scene) -> None:
    campaign = draft(scene, patch_deadline_s=HOUR)
    build_patches_due(scene.now, limit=100)
    Patch.objects.filter(base=scene.new).update(state="waiting")
    campaign = scene.tick(approve_and_start(scene, campaign))
    assert scene.states(campaign) == {"planned": 10}
    campaign = scene.tick(campaign, later_s=HOUR)
    assert scene.states(campaign) == {"offered": 10}


def test_a_failed_reverse_patch_is_a_warning_and_stops_nothing(scene: Scene) -> None:
    campaign = draft(scene)
    build_patches_due(scene.now, limit=100)
    Patch.objects.filter(base=scene.new).update(state="failed", failure="decodes to other bytes")
    campaign = scene.tick(approve_and_start(scene, campaign))
    assert scene.states(campaign) == {"offered": 10}
    [warning] = patch_warnings(campaign, now=scene.now)
    assert warning.startswith("1 reverse patch could not be built")


def test_a_failed_patch_lets_the_full_image_go(scene: Scene) -> None:
    campaign = draft(scene)
    build_patches_due(scene.now, limit=100)
    Patch.objects.filter(target=scene.new).update(state="failed", failure="no")
    campaign = scene.tick(approve_and_start(scene, campaign))
    assert set(offered_to(scene.open_updates(campaign)[0])) == {""}


def test_where_no_full_image_is_allowed_nodes_without_a_patch_are_skipped_with_the_cause(scene: Scene) -> None:
    fleet = mixed(scene)
    campaign = draft(scene, full_image_allowed=False)
    build_patches_due(scene.now, limit=100)
    Patch.objects.filter(target=scene.new, decoder="s").update(state="failed", failure="no")
    campaign = scene.tick(approve_and_start(scene, campaign))
    assert {decoder: states_of(campaign, nodes) for decoder, nodes in fleet.items()} == {
        "none": {("skipped", "no-patch")},
        "s": {("skipped", "no-patch")},
        "l": {("offered", "")},
        "bsdiff": {("offered", "")},
    }
    assert "no patch decoder" in campaign.plan["refused"][0]["reason"]
    assert set(offered_to(campaign.node_updates.get(node=fleet["l"][0]))) == {scene.old.digest}


def test_where_no_full_image_is_allowed_a_late_patch_skips_its_nodes_and_no_others(scene: Scene) -> None:
    fleet = mixed(scene)
    campaign = draft(scene, full_image_allowed=False, patch_deadline_s=HOUR)
    build_patches_due(scene.now, limit=100)
    Patch.objects.filter(target=scene.new, decoder="s").update(state="waiting")
    scene.now += timedelta(seconds=HOUR)
    campaign = scene.tick(approve_and_start(scene, campaign))
    assert states_of(campaign, fleet["s"]) == {("skipped", "no-patch")}
    assert states_of(campaign, fleet["l"]) == {("offered", "")}


def test_where_no_full_image_is_allowed_a_node_with_an_unknown_base_is_refused_by_the_preview_too(scene: Scene) -> None:
    Node.objects.filter(pk=scene.fleet[0].pk).update(active_digest="ab" * 32)
    found = preview(
        version=scene.new.version, node_filter="", waves=ALL_AT_ONCE, gate=LENIENT, now=scene.now,
        full_image_allowed=False,
    )  # fmt: skip
    assert [(row["cause"], row["nodes"]) for row in found.refused] == [("no-patch", 1)]
    assert draft(scene, full_image_allowed=False).plan["reached"] == 9


def test_a_campaign_where_every_node_was_skipped_finishes(scene: Scene) -> None:
    campaign = draft(scene, full_image_allowed=False)
    build_patches_due(scene.now, limit=100)
    Patch.objects.filter(target=scene.new).update(state="failed", failure="no")
    campaign = scene.tick(approve_and_start(scene, campaign), times=4)
    assert (campaign.state, scene.states(campaign)) == ("finished", {"skipped": 10})


def test_a_node_that_joins_waits_for_its_patch_where_no_full_image_is_allowed(scene: Scene) -> None:
    campaign = draft(scene, full_image_allowed=False, membership="dynamic")
    build_patches_due(scene.now, limit=100)
    campaign = scene.tick(approve_and_start(scene, campaign))
    small = FirmwareBuild.objects.create(name="fw-s", operators=["CONV_2D"], io_hash="00c0ffee", decoder_profile="s")
    late = Node.objects.create(
        endpoint="late", link="nbiot", profile=scene.profile, firmware_build=small, active_digest=scene.old.digest
    )
    scene.tick(campaign, times=3)
    assert states_of(campaign, [late]) == {("planned", "")}
    build_patches_due(scene.now, limit=100)
    scene.tick(campaign, times=3)
    assert states_of(campaign, [late]) == {("offered", "")}
    assert set(offered_to(campaign.node_updates.get(node=late))) == {scene.old.digest}


def test_a_rollback_whose_reverse_patch_is_late_starts_at_the_deadline(scene: Scene) -> None:
    campaign = scene.tick(scene.campaign(patch_deadline_s=HOUR))
    for update in scene.open_updates(campaign):
        scene.confirm(update)
    scene.drain()
    scene.tick(campaign, times=3)
    Patch.objects.all().delete()
    Node.objects.update(standby_digest="")
    rollback = roll_back(campaign_id=campaign.pk, actor="ana", now=scene.now)
    work.tick_all(now=scene.now)
    rollback.refresh_from_db()
    assert rollback.state == "draft"
    scene.now += timedelta(seconds=HOUR)
    work.tick_all(now=scene.now)
    rollback = scene.tick(Campaign.objects.get(pk=rollback.pk))
    assert scene.states(rollback) == {"offered": 10}


def test_a_node_of_each_decoder_goes_back_by_its_own_reverse_patch(scene: Scene) -> None:
    fleet = mixed(scene)
    campaign = scene.tick(scene.campaign())
    for update in scene.open_updates(campaign):
        scene.confirm(update)
    scene.drain()
    scene.tick(campaign, times=3)
    Node.objects.update(standby_digest="")
    rollback = scene.tick(roll_back(campaign_id=campaign.pk, actor="ana", now=scene.now))
    for decoder in ("s", "l"):
        bundle = offered_to(rollback.node_updates.get(node=fleet[decoder][0]))[scene.new.digest]
        assert codec_of(bundle) in ({2} if decoder == "s" else {2, 3})
        payload = unpack_bundle(bundle).payload
        assert apply_patch(codec_of(bundle), bytes(scene.new.blob.data), payload, scene.old.size) == bytes(
            scene.old.blob.data
        )


@pytest.mark.parametrize(("field", "value"), [("full_image_allowed", 1), ("patch_deadline_s", -1)])
def test_terms_of_patches_that_make_no_sense_are_refused(scene: Scene, field: str, value: object) -> None:
    with pytest.raises(PlanRefused) as refusal:
        draft(scene, **{field: value})
    assert refusal.value.field == field


def test_a_node_that_pulled_its_patch_is_confirmed(scene: Scene) -> None:
    fleet = mixed(scene)
    campaign = scene.tick(scene.campaign())
    update = campaign.node_updates.get(node=fleet["l"][0])
    scene.event(update.node, LinkEventKind.HOLDS, digest=scene.old.digest)
    scene.confirm(update)
    scene.drain()
    update.refresh_from_db()
    assert update.state == "confirmed"
