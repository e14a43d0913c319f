from __future__ import annotations

import hashlib

import pytest
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from devices.links import link_for
from devices.links.base import Recipient
from devices.models import Delivery, HardwareProfile, LinkKind, Node, OfferedBundle, Offering

pytestmark = pytest.mark.django_db
LINK = link_for(LinkKind.NBIOT)
BASE = hashlib.sha256(b"base").hexdigest()


@pytest.fixture
def nodes() -> list[Recipient]:
    profile = HardwareProfile.objects.create(name="board", slot_bytes=1, sram_bytes=2, reserved_sram_bytes=1)
    made = Node.objects.bulk_create(Node(endpoint=f"n{i}", link=LinkKind.NBIOT, profile=profile) for i in range(600))
    return [Recipient(node.pk, 1000 + i) for i, node in enumerate(made)]


def test_an_offer_to_600_nodes_takes_few_queries(
    nodes: list[Recipient], django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    with django_assert_max_num_queries(14):  # six of them are savepoints; each bundle is locked against collection
        LINK.offer(bundles={BASE: b"patch", "*": b"full"}, nodes=nodes, now=timezone.now())
    assert Delivery.objects.filter(state="waiting").count() == 600
    assert len(set(Delivery.objects.values_list("token", flat=True))) == 600
    assert set(OfferedBundle.objects.values_list("base_digest", flat=True)) == {BASE, ""}


def test_a_second_offer_changes_nothing_while_the_first_is_open(nodes: list[Recipient]) -> None:
    LINK.offer(bundles={"*": b"full"}, nodes=nodes[:2], now=timezone.now())
    before = list(Delivery.objects.order_by("pk").values())
    LINK.offer(bundles={"*": b"other"}, nodes=nodes[:2], now=timezone.now())
    LINK.command(command=b"\x01", nodes=nodes[:2], now=timezone.now())
    assert list(Delivery.objects.order_by("pk").values()) == before
    assert Offering.objects.count() == 1


def test_a_reference_may_be_used_again_after_its_delivery_was_cancelled(nodes: list[Recipient]) -> None:
    LINK.command(command=b"\x01", nodes=nodes[:3], now=timezone.now())
    assert LINK.cancel(references=[1000, 1001, 5], now=timezone.now()) == 2
    LINK.command(command=b"\x02", nodes=nodes[:3], now=timezone.now())
    assert sorted(Delivery.objects.values_list("reference", "state")) == [
        (1000, "cancelled"),
        (1000, "waiting"),
        (1001, "cancelled"),
        (1001, "waiting"),
        (1002, "waiting"),
    ]


@pytest.mark.parametrize("bundles", [{}, {"abc": b"x"}, {"*": b""}, {BASE.upper(): b"x"}])
def test_a_bad_offer_is_refused_whole(nodes: list[Recipient], bundles: dict[str, bytes]) -> None:
    with pytest.raises(ValueError, match="bundles"):
        LINK.offer(bundles=bundles, nodes=nodes[:1], now=timezone.now())
    assert not Delivery.objects.exists()
    assert not Offering.objects.exists()


@pytest.mark.parametrize("command", [b"", bytes(65)])
def test_a_command_of_a_wrong_length_is_refused(nodes: list[Recipient], command: bytes) -> None:
    with pytest.raises(ValueError, match="command"):
        LINK.command(command=command, nodes=nodes[:1], now=timezone.now())
