from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from django.test import Client
from django.utils import timezone

from devices.models import LinkEvent, Node, NodeHealth
from devices.wire import Cause, NodeState, StateReport
from fleet.accounts.models import Role
from frontend import selectors
from tests import factories
from tests.integration.frontend.conftest import Fleet

SignIn = Callable[[Role], Client]


@pytest.mark.parametrize(
    ("state", "sentence"),
    [
        ("offered", "is offered and the node has not fetched it"),
        ("transferring", "4.0 KiB of 8.0 KiB"),
        ("staged", "is in the standby slot and verified"),
        ("trial", "beside the old image"),
        ("confirmed", "the node confirmed that it runs"),
        ("failed", "gave other outputs than the golden ones"),
        ("rejected", "holds another base image than the patch starts from"),
        ("silent", "did not take the offer up in time"),
        ("reverted", "could not reach the server after the switch"),
        ("skipped", "57472 bytes, 22937 are allowed"),
        ("cancelled", "aborted before the node was done"),
    ],
)
def test_the_reason_names_what_holds_the_node(fleet: Fleet, sign_in: SignIn, state: str, sentence: str) -> None:
    body = sign_in(Role.VIEWER).get(f"/nodes/{fleet.nodes[state].pk}/").content.decode()

    head = body[body.index('class="verdict') : body.index("<dl")]
    assert sentence in head.replace("&#x27;", "'")


def test_a_node_that_waits_says_what_for(fleet: Fleet, sign_in: SignIn) -> None:
    client = sign_in(Role.VIEWER)
    address = f"/nodes/{fleet.nodes['planned'].pk}/"
    assert "awaits approval" in client.get(address).content.decode()

    fleet.draft.state, fleet.draft.approved_hash = "paused", fleet.draft.plan_hash
    fleet.draft.reason = "Paused by Ada."
    fleet.draft.save()

    assert "is paused (Paused by Ada)" in client.get(address).content.decode()


def test_a_node_in_no_campaign_whose_profile_is_too_small_says_so_with_numbers(sign_in: SignIn, db: None) -> None:
    small = factories.make_profile(sram_bytes=64 * 1024, reserved_sram_bytes=32 * 1024)
    old = factories.make_version(profiles=[small], arena_bytes=1000)
    factories.make_version(profiles=[small], family=old.family)
    node = factories.make_node(profile=small, active_digest=old.images.get().digest)

    body = sign_in(Role.VIEWER).get(f"/nodes/{node.pk}/").content.decode()

    assert "does not fit the profile" in body
    assert "57472 bytes, 22937 are allowed" in body


def test_the_timeline_reads_what_the_node_reported(fleet: Fleet, sign_in: SignIn) -> None:
    report = StateReport(NodeState.REJECTED, Cause.WRONG_BASE, b"\xaa" * 4, b"\0" * 4, 1)
    node = fleet.nodes["failed"]
    for payload in (report.encode(), b"\xff not a report"):
        LinkEvent.objects.create(at=timezone.now(), link="nbiot", kind="report", node=node, payload=payload)

    body = sign_in(Role.VIEWER).get(f"/nodes/{node.pk}/").content.decode()

    assert "State rejected, runs aaaaaaaa. The node holds another base" in body.replace("&#x27;", "'")
    assert "unreadable" in body


def test_a_reported_prefix_and_a_whole_digest_name_the_same_version(sign_in: SignIn, db: None) -> None:
    version = factories.make_version()
    digest = version.images.get().digest
    for said in (digest, digest[:8]):
        factories.make_node(active_digest=said)
    factories.make_node(active_digest="ff" * 4)

    shares = selectors.version_shares()

    assert [(share.name, share.nodes) for share in shares] == [(str(version), 2), ("", 1)]


def test_silence_counts_in_the_nodes_own_rhythm_and_in_fleet_time(db: None, settings: object) -> None:
    now = timezone.now()
    factories.make_node(seen_at=now - timedelta(hours=47))
    gone = factories.make_node(seen_at=now - timedelta(hours=49))
    slow = factories.make_node(seen_at=now - timedelta(hours=49))
    slow.presence.report_interval_s = 24 * 3600.0
    slow.presence.save()

    def silent() -> set[Node]:
        return {presence.node for presence in selectors.silent(now=now).select_related("node")}

    assert silent() == {gone}
    settings.TIME_SCALE = 60.0  # type: ignore[attr-defined]
    assert len(silent()) == 3


def test_figures_that_the_node_did_not_measure_are_left_out(sign_in: SignIn, db: None) -> None:
    node = factories.make_node()
    said = {"inferences": 1000, "p99_latency_us": 0, "resets": 0, "battery_mv": 0, "arena_used_bytes": 55_808}
    NodeHealth.objects.create(node=node, at=factories.NOW, counters=said)

    body = sign_in(Role.VIEWER).get(f"/nodes/{node.pk}/").content.decode()

    assert "Arena used" in body
    assert "54.5 KiB" in body
    assert "Resets" in body
    assert "p99 latency" not in body
    assert "0 V" not in body
