from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta

import pytest
from django.core.exceptions import ValidationError
from hypothesis import given
from hypothesis import strategies as st
from pytest_django import DjangoAssertNumQueries

from devices.models import HardwareProfile, LinkKind, Node, NodePresence, UnknownEndpoint
from devices.services import (
    Holding,
    PrefixClash,
    Sighting,
    record_holdings,
    record_presence,
    record_unknown_endpoint,
    register_image,
    register_node,
    sequence_from_low_byte,
)

AT = datetime(2026, 11, 23, tzinfo=UTC)
OLD, NEW = hashlib.sha256(b"old").hexdigest(), hashlib.sha256(b"new").hexdigest()


@pytest.fixture
def node(db: None) -> Node:
    profile = HardwareProfile.objects.create(name="board", slot_bytes=1, sram_bytes=2, reserved_sram_bytes=1)
    return register_node(endpoint="n1", link=LinkKind.NBIOT, profile=profile)


def test_a_registered_node_is_no_unknown_endpoint_any_more(node: Node) -> None:
    record_unknown_endpoint(link=LinkKind.NBIOT, endpoint="n2", address="", now=AT)
    register_node(endpoint="n2", link=LinkKind.NBIOT, profile=node.profile)
    assert not UnknownEndpoint.objects.exists()
    with pytest.raises(ValidationError, match="endpoint"):
        register_node(endpoint="n2", link=LinkKind.NBIOT, profile=node.profile)


def test_unknown_endpoints_are_counted_and_bounded(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("devices.services.UNKNOWN_ENDPOINTS_MAX", 2)
    for name in ("a", "b", "c", "a"):
        record_unknown_endpoint(link=LinkKind.NBIOT, endpoint=name, address="x", now=AT)
    assert sorted(UnknownEndpoint.objects.values_list("endpoint", "attempts")) == [("a", 2), ("b", 1)]


def test_two_images_with_one_prefix_are_refused_with_the_way_out(db: None) -> None:
    register_image(OLD)
    assert register_image(OLD).digest == OLD
    with pytest.raises(PrefixClash, match="upload again"):
        register_image(OLD[:8] + NEW[8:])


def test_a_prefix_becomes_the_whole_digest_of_a_known_image(node: Node) -> None:
    register_image(NEW)
    holding = Holding(node.pk, active_digest=NEW[:8], standby_digest=OLD[:8], sequence_low_byte=5)
    assert record_holdings(holdings=[holding]) == 1
    node.refresh_from_db()
    assert (node.active_digest, node.standby_digest, node.sequence) == (NEW, OLD[:8], 5)
    assert record_holdings(holdings=[holding]) == 0


def test_a_prefix_never_takes_the_place_of_the_whole_digest_that_it_begins(node: Node) -> None:
    record_holdings(holdings=[Holding(node.pk, active_digest=OLD)])
    assert record_holdings(holdings=[Holding(node.pk, active_digest=OLD[:8])]) == 0


def test_what_a_node_does_not_say_stays_and_an_empty_slot_is_taken_over(node: Node) -> None:
    record_holdings(holdings=[Holding(node.pk, active_digest=OLD, standby_digest=NEW)])
    record_holdings(holdings=[Holding(node.pk, standby_digest="")])
    node.refresh_from_db()
    assert (node.active_digest, node.standby_digest) == (OLD, "")


def test_holdings_of_many_nodes_take_few_queries(
    node: Node, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    made = Node.objects.bulk_create(
        Node(endpoint=f"m{i}", link=LinkKind.NBIOT, profile=node.profile) for i in range(200)
    )
    with django_assert_max_num_queries(8):
        assert record_holdings(holdings=[Holding(each.pk, active_digest=NEW[:8]) for each in made]) == 200


@given(known=st.integers(0, 1 << 40), change=st.integers(-100, 127))
def test_a_sequence_near_the_known_one_is_found_from_its_low_byte(known: int, change: int) -> None:
    sequence = max(0, known + change)
    assert sequence_from_low_byte(known=known, low_byte=sequence & 0xFF) == sequence


def test_presence_smooths_the_time_between_windows_and_ignores_signs_inside_one(
    node: Node, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    def sighting(seconds: float) -> Sighting:
        at = AT + timedelta(seconds=seconds)
        return Sighting(node.pk, at, at + timedelta(seconds=10), "127.0.0.1:1")

    with django_assert_num_queries(1):
        record_presence(sightings=[sighting(0), Sighting(987654, AT)])
    for seconds in (5, 105):
        record_presence(sightings=[sighting(seconds)])
    assert NodePresence.objects.get().report_interval_s == pytest.approx(100)
    record_presence(sightings=[sighting(305)])
    presence = NodePresence.objects.get()
    assert presence.report_interval_s == pytest.approx(0.8 * 100 + 0.2 * 200)
    assert (presence.last_seen_at, presence.address) == (AT + timedelta(seconds=305), "127.0.0.1:1")
