"""What a plan says of the air: by link, data rate and gateway, in few queries however many nodes there are."""

from __future__ import annotations

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from devices.models import LoRaWanDevice, NetworkServer, Node, NodeRadio
from tests.integration.updates.campaigns.scene import START, Scene
from updates.campaigns import plan
from updates.models import Campaign

pytestmark = pytest.mark.django_db


def over_lorawan(
    nodes: list[Node], *, rate: int | None, gateway: str = "0016c001f153a14c", region: str = "EU868"
) -> None:
    Node.objects.filter(pk__in=[node.pk for node in nodes]).update(link="lorawan")
    server, _ = NetworkServer.objects.get_or_create(name="s", target="h:1", token_sealed=b"", event_base_url="http://h")
    LoRaWanDevice.objects.bulk_create(LoRaWanDevice(node=node, server=server, region=region) for node in nodes)
    if rate is not None:
        NodeRadio.objects.bulk_create(
            NodeRadio(node=node, at=START, region=region, data_rate=rate, gateway_id=gateway, frame_counter=1)
            for node in nodes
        )


def draft(scene: Scene) -> Campaign:
    return plan.create_campaign(
        name="costs",
        version=scene.new.version,
        node_filter="",
        waves=[{"percent": 100, "soak_s": 0}],
        gate={},
        starts_at=None,
        actor="olga",
        now=START,
    )


def test_nodes_of_both_links_are_reached_and_summed_apart() -> None:
    scene = Scene(nodes=10)
    over_lorawan(scene.fleet[:4], rate=5)
    over_lorawan(scene.fleet[4:6], rate=0, gateway="0016c001f153a14d")
    made = draft(scene).plan
    assert (made["nodes"], made["reached"], made["refused"]) == (10, 10, [])
    lorawan, nbiot = made["links"]
    assert (lorawan["link"], lorawan["nodes"], lorawan["data_rates"]) == ("lorawan", 6, {"DR0": 2, "DR5": 4})
    assert (nbiot["link"], nbiot["nodes"], nbiot["data_rates"]) == ("nbiot", 4, {})
    assert made["frames"] == lorawan["frames"] + nbiot["frames"]
    assert made["airtime_s"] == pytest.approx(lorawan["airtime_s"] + nbiot["airtime_s"], abs=0.2)
    assert [(one["gateway"], one["nodes"]) for one in made["gateways"]] == [
        ("0016c001f153a14d", 2),
        ("0016c001f153a14c", 4),
    ]


def test_a_busy_gateway_sets_the_hours() -> None:
    alone, crowd = Scene(nodes=1), None
    over_lorawan(alone.fleet, rate=3)
    one = draft(alone).plan
    for number in range(20):
        crowd = Node.objects.create(
            endpoint=f"more-{number}",
            link="nbiot",
            profile=alone.profile,
            firmware_build=alone.firmware,
            active_digest=alone.old.digest,
        )
        over_lorawan([crowd], rate=3)
    many = draft(alone).plan
    assert many["hours"] == pytest.approx(many["gateways"][0]["hours"])
    assert many["hours"] > 15 * one["hours"]


def test_a_node_that_was_never_heard_counts_as_the_slowest_and_the_plan_says_so() -> None:
    scene = Scene(nodes=3)
    over_lorawan(scene.fleet[:1], rate=None)
    (lorawan, _) = draft(scene).plan["links"]
    assert lorawan["data_rates"] == {"unknown": 1}
    assert lorawan["assumed"] == [{"what": "data rate not known, DR0 of EU868 taken", "nodes": 1}]
    assert draft(scene).plan["gateways"][0]["hours"] is None


def test_patches_in_the_making_are_counted_once_whatever_the_data_rates() -> None:
    scene = Scene(nodes=6)
    for index, node in enumerate(scene.fleet):
        over_lorawan([node], rate=index)
    assert draft(scene).plan["pending_patches"] == 1


def test_the_number_of_queries_does_not_grow_with_the_nodes() -> None:
    few = Scene(nodes=5)
    over_lorawan(few.fleet, rate=2)
    with CaptureQueriesContext(
        connection,
    ) as small:
        draft(few)
    more = [
        Node.objects.create(
            endpoint=f"more-{number}",
            link="nbiot",
            profile=few.profile,
            firmware_build=few.firmware,
            active_digest=few.old.digest,
        )
        for number in range(60)
    ]
    over_lorawan(more, rate=4)
    with CaptureQueriesContext(connection) as large:
        draft(few)
    assert len(large) <= len(small)
