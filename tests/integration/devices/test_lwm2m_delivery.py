from __future__ import annotations

import asyncio
import hashlib
from datetime import timedelta

import pytest
from aiocoap import CHANGED, CONTENT, NOT_FOUND
from django.db import connection
from django.utils import timezone

from devices.links import link_for
from devices.links.base import Recipient
from devices.models import Delivery, LinkEvent, LinkKind
from devices.services import hold_deliveries
from tests.integration.devices.lwm2m_node import (
    COMMANDED,
    CONFIRMED,
    REVERTED,
    TRIAL,
    ScriptedNode,
    eventually,
    gateway_and_node,
    in_database,
    make_node,
    node_at,
    state_report,
)

pytestmark = pytest.mark.django_db(transaction=True)
LINK = link_for(LinkKind.NBIOT)
BASE = hashlib.sha256(b"base").digest()
TARGET = hashlib.sha256(b"target").digest()
PATCH, FULL = bytes(range(256)) * 9, b"full image" * 700


def offer(node_id: int, *, reference: int = 7, patch_for: bytes = BASE, full: bool = True) -> Delivery:
    bundles = {patch_for.hex(): PATCH} | ({"*": FULL} if full else {})
    LINK.offer(bundles=bundles, nodes=[Recipient(node_id, reference)], now=timezone.now())
    return Delivery.objects.get(reference=reference)


def events() -> list[tuple[str, str]]:
    return list(LinkEvent.objects.exclude(kind__in=["progress", "report"]).order_by("id").values_list("kind", "digest"))


def state_of(delivery: Delivery) -> str:
    return Delivery.objects.values_list("state", flat=True).get(pk=delivery.pk)


async def uri_at(node: ScriptedNode, *, count: int = 1) -> str:
    await eventually(lambda: len(node.objects.uris) >= count)
    return node.objects.uris[count - 1]


def test_a_bundle_is_offered_pulled_executed_and_delivered_in_one_window() -> None:
    delivery = offer(make_node(active_digest=BASE.hex()).pk)

    async def scenario() -> None:
        async with gateway_and_node(base=BASE) as (_, node):
            await node.register()
            uri = await uri_at(node)
            node.objects.state = 1
            assert await node.pull_whole(uri) == PATCH
            node.objects.state = 2
            await eventually(lambda: state_of(delivery) == "delivered")
            assert node.objects.executed == 1

    asyncio.run(scenario())
    delivery.refresh_from_db()
    assert delivery.bytes_sent == len(PATCH)
    assert events() == [("offered", BASE.hex()), ("delivered", "")]
    progress = LinkEvent.objects.filter(kind="progress").order_by("id").values_list("received_bytes", "total_bytes")
    assert progress[0] == (512, len(PATCH))
    assert progress[len(progress) - 1] == (len(PATCH), len(PATCH))


def test_the_base_that_the_node_says_in_the_window_decides_which_bundle_it_gets() -> None:
    delivery = offer(make_node(active_digest=BASE.hex()).pk)
    other = hashlib.sha256(b"other").digest()

    async def scenario() -> None:
        async with gateway_and_node(base=other) as (_, node):
            await node.register()
            assert await node.pull_whole(await uri_at(node)) == FULL

    asyncio.run(scenario())
    assert events() == [("holds", other.hex()), ("offered", other.hex())]
    assert state_of(delivery) == "transferring"


def test_a_node_whose_base_has_no_bundle_fails() -> None:
    delivery = offer(make_node(active_digest=BASE.hex()).pk, patch_for=TARGET, full=False)

    async def scenario() -> None:
        async with gateway_and_node(base=BASE) as (_, node):
            await node.register()
            await eventually(lambda: state_of(delivery) == "failed")
            assert node.objects.uris == []

    asyncio.run(scenario())
    assert LinkEvent.objects.get(kind="failed").cause == "no-bundle-for-base"


def test_a_resumed_download_keeps_its_byte_offset_under_a_smaller_block_size() -> None:
    offer(make_node(active_digest=BASE.hex()).pk)

    async def scenario() -> None:
        async with gateway_and_node(base=BASE) as (_, node):
            await node.register()
            answer = await node.pull(await uri_at(node), number=1, size_exponent=6)
            assert (answer.opt.block2.block_number, answer.opt.block2.size_exponent) == (2, 5)
            assert answer.payload == PATCH[1024 : 1024 + 512]
            assert answer.opt.block2.more
            assert answer.opt.etag == hashlib.sha256(PATCH).digest()[:8]

    asyncio.run(scenario())


def test_a_download_goes_on_from_another_port() -> None:
    offer(make_node(active_digest=BASE.hex()).pk)

    async def scenario() -> None:
        async with gateway_and_node(base=BASE) as (_, node):
            await node.register()
            uri = await uri_at(node)
            first = await node.pull(uri, number=0)
            async with node_at(int(node.server.rsplit(":", 1)[1])) as elsewhere:
                second = await elsewhere.pull(uri, number=1)
            assert first.payload + second.payload == PATCH[:1024]
            assert first.opt.etag == second.opt.etag

    asyncio.run(scenario())


def test_a_node_that_lost_its_download_is_given_the_address_again_in_its_next_window() -> None:
    delivery = offer(make_node(active_digest=BASE.hex()).pk)

    async def scenario() -> None:
        async with gateway_and_node(base=BASE) as (_, node):
            await node.register()
            uri = await uri_at(node)
            await node.pull(uri)
            await node.update()
            assert await uri_at(node, count=2) == uri

    asyncio.run(scenario())
    assert state_of(delivery) == "transferring"
    assert events() == [("offered", BASE.hex())]


def test_a_held_bundle_is_pulled_and_executed_in_a_later_window_of_the_node_once_it_is_let_go() -> None:
    delivery = offer(make_node(active_digest=BASE.hex()).pk)
    hold_deliveries(deliveries=[delivery.pk], held=True)

    async def scenario() -> None:
        async with gateway_and_node(base=BASE) as (_, node):
            await node.register()
            uri = await uri_at(node)
            node.objects.state = 1
            await node.pull_whole(uri)
            node.objects.state = 2
            for _ in range(2):
                # The gateway works a node's windows off one by one: at the second look the first has decided.
                looked = node.objects.requests.count("GET 5/0/3")
                await node.update()
                await eventually(lambda looked=looked: node.objects.requests.count("GET 5/0/3") > looked)
            assert node.objects.executed == 0
            await in_database(lambda: hold_deliveries(deliveries=[delivery.pk], held=False))
            await node.update()
            await eventually(lambda: state_of(delivery) == "delivered")
            assert (node.objects.executed, len(node.objects.uris)) == (1, 1)

    asyncio.run(scenario())


def test_an_execution_that_nobody_saw_is_found_by_the_image_that_the_node_runs_afterwards() -> None:
    delivery = offer(make_node(active_digest=BASE.hex()).pk)

    async def scenario() -> None:
        async with gateway_and_node(base=BASE) as (gateway, node):
            await node.register()
            await node.pull(await uri_at(node))
            await eventually(lambda: state_of(delivery) == "transferring")
            gateway.registry.by_location.clear()  # what a killed process leaves behind
            node.objects.base = TARGET
            await node.register()
            await eventually(lambda: state_of(delivery) == "delivered")
            assert len(node.objects.uris) == 1

    asyncio.run(scenario())
    assert events() == [("offered", BASE.hex()), ("holds", TARGET.hex()), ("delivered", "")]


def test_a_package_of_an_earlier_delivery_is_never_executed_for_a_new_one() -> None:
    delivery = offer(make_node(active_digest=BASE.hex()).pk)

    async def scenario() -> None:
        async with gateway_and_node(base=BASE) as (_, node):
            node.objects.state = 2
            await node.register()
            await uri_at(node)
            await node.update()
            await uri_at(node, count=2)
            assert node.objects.executed == 0

    asyncio.run(scenario())
    assert state_of(delivery) == "offered"


def test_a_node_that_switches_when_the_gateway_comes_back_has_got_its_bundle() -> None:
    delivery = offer(make_node(active_digest=BASE.hex()).pk)

    async def scenario() -> None:
        async with gateway_and_node(base=BASE) as (gateway, node):
            await node.register()
            await node.pull(await uri_at(node))
            await eventually(lambda: state_of(delivery) == "transferring")
            gateway.registry.by_location.clear()
            node.objects.state = 3
            await node.register()
            await eventually(lambda: state_of(delivery) == "delivered")

    asyncio.run(scenario())


def test_an_offer_to_a_node_that_is_awake_reaches_it_without_another_sign_of_life() -> None:
    pk = make_node(active_digest=BASE.hex()).pk

    async def scenario() -> None:
        async with gateway_and_node(base=BASE) as (_, node):
            await node.register()
            await in_database(lambda: offer(pk))
            await uri_at(node)

    asyncio.run(scenario())


def test_nothing_is_sent_to_a_node_that_is_asleep() -> None:
    pk = make_node(active_digest=BASE.hex()).pk

    async def scenario() -> None:
        async with gateway_and_node(base=BASE, awake_s=0.5) as (gateway, node):
            await node.register()
            session = next(iter(gateway.registry.by_location.values()))
            await eventually(lambda: node.objects.requests)
            session.awake_until = 0
            delivery = await in_database(lambda: offer(pk))
            await asyncio.sleep(1.5)  # one round of the gateway's poll
            assert node.objects.uris == []
            assert await in_database(lambda: state_of(delivery)) == "waiting"
            await node.update()
            await uri_at(node)

    asyncio.run(scenario())


def test_a_cancelled_delivery_can_not_be_pulled() -> None:
    delivery = offer(make_node(active_digest=BASE.hex()).pk)

    async def scenario() -> None:
        async with gateway_and_node(base=BASE) as (gateway, node):
            await node.register()
            uri = await uri_at(node)
            assert (await node.pull(uri)).code == CONTENT
            assert await in_database(lambda: LINK.cancel(references=[7], now=timezone.now())) == 1
            await eventually(lambda: not gateway.transfers.deliveries())
            assert (await node.pull(uri, number=1)).code == NOT_FOUND

    asyncio.run(scenario())
    assert state_of(delivery) == "cancelled"
    assert LINK.cancel(references=[7], now=timezone.now()) == 0


@pytest.mark.parametrize(
    ("refuse", "report_state", "outcome"),
    [
        (False, TRIAL, "delivered"),
        (True, CONFIRMED, "failed"),
        (True, REVERTED, "delivered"),
    ],
)
def test_a_command_ends_as_the_node_answers(refuse: bool, report_state: int, outcome: str) -> None:
    """A command whose answer was lost is refused the second time; the node's report then tells that it obeyed."""
    pk = make_node().pk
    LINK.command(command=b"\x01" + bytes(16), nodes=[Recipient(pk, 9)], now=timezone.now())

    async def scenario() -> None:
        async with gateway_and_node(base=BASE) as (_, node):
            node.objects.refuse_commands = refuse
            node.objects.report = state_report(report_state, active=BASE, cause=COMMANDED)
            await node.register()
            await eventually(lambda: Delivery.objects.get(reference=9).state == outcome)
            assert node.objects.commands == [b"\x01" + bytes(16)]

    asyncio.run(scenario())
    assert LinkEvent.objects.get(kind=outcome).reference == 9


def test_a_command_refused_in_the_middle_of_a_trial_is_kept_for_the_next_window() -> None:
    pk = make_node().pk
    LINK.command(command=b"\x01" + bytes(16), nodes=[Recipient(pk, 9)], now=timezone.now())

    async def scenario() -> None:
        async with gateway_and_node(base=BASE) as (_, node):
            node.objects.refuse_commands = True
            node.objects.report = state_report(TRIAL, active=BASE)
            await node.register()
            # The report that is read after the refusal, besides the one that is read on registration.
            await eventually(lambda: LinkEvent.objects.filter(kind="report").count() == 2)
            node.objects.refuse_commands = False
            await node.update()
            await eventually(lambda: Delivery.objects.get(reference=9).state == "delivered")

    asyncio.run(scenario())
    assert not LinkEvent.objects.filter(kind="failed").exists()


def test_the_whole_digest_comes_before_the_report_of_a_confirmed_image() -> None:
    make_node(active_digest=BASE.hex())
    report = state_report(CONFIRMED, active=TARGET, sequence_low=3)

    async def scenario() -> None:
        async with gateway_and_node(base=BASE) as (_, node):
            await node.register()
            await eventually(lambda: LinkEvent.objects.count() == 1)
            node.objects.base = TARGET
            assert (await node.send(report)).code == CHANGED
            await eventually(lambda: LinkEvent.objects.count() == 3)

    asyncio.run(scenario())
    first, holds, confirmed = LinkEvent.objects.order_by("id")
    assert (first.kind, holds.kind, holds.digest) == ("report", "holds", TARGET.hex())
    assert bytes(confirmed.payload or b"") == report


def test_a_report_is_answered_when_it_is_kept() -> None:
    make_node()

    async def scenario() -> None:
        async with gateway_and_node(base=BASE) as (_, node):
            await node.register()
            report = state_report(TRIAL, active=BASE)
            assert (await node.send(report)).code == CHANGED
            assert await in_database(lambda: LinkEvent.objects.filter(payload=report).count()) == 1

    asyncio.run(scenario())


def test_a_client_with_object_5_alone_is_read_and_its_errors_end_the_delivery() -> None:
    delivery = offer(make_node(active_digest=BASE.hex()).pk)

    async def scenario() -> None:
        async with gateway_and_node(base=BASE, agent=False) as (_, node):
            await node.register("lwm2m=1.0&b=UQ")
            await node.pull(await uri_at(node))
            node.objects.result = 5
            await node.update()
            await eventually(lambda: state_of(delivery) == "failed")

    asyncio.run(scenario())
    assert LinkEvent.objects.get(kind="failed").cause == "object5-result-5"


def test_the_gateway_goes_on_when_its_database_connections_are_cut() -> None:
    make_node(active_digest=BASE.hex())
    connection.close()  # this thread's own is not to be cut

    def cut() -> None:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )

    async def scenario() -> None:
        async with gateway_and_node(base=BASE) as (_, node):
            await node.register()
            await eventually(lambda: LinkEvent.objects.count() == 1)
            await in_database(cut)
            assert (await node.send(state_report(TRIAL, active=BASE))).code == CHANGED
            await in_database(cut)
            await node.register()
            await eventually(lambda: LinkEvent.objects.count() == 3)

    asyncio.run(scenario())


def test_an_open_delivery_stays_as_it_is_when_it_is_offered_again() -> None:
    pk = make_node().pk
    first = offer(pk)
    LINK.offer(bundles={"*": FULL}, nodes=[Recipient(pk, 7)], now=timezone.now() + timedelta(seconds=1))
    assert Delivery.objects.get(reference=7).offering_id == first.offering_id


def test_a_gateway_whose_coap_library_has_lost_a_node_asks_to_be_started_again() -> None:
    delivery = offer(make_node(active_digest=BASE.hex()).pk)

    async def scenario() -> None:
        async with gateway_and_node(base=BASE) as (gateway, node):
            await node.register()
            await uri_at(node)
            session = next(iter(gateway.registry.by_location.values()))
            exchanges = gateway._context.request_interfaces[0].token_interface
            exchanges._backlogs[session.remote] = []  # what is left behind by an exchange that nobody ended
            await node.update()
            await asyncio.wait_for(gateway.broken.wait(), 8)

    asyncio.run(scenario())
    assert state_of(delivery) == "offered"  # nothing is decided by it: the next process goes on
