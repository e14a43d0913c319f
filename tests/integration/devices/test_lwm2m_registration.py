from __future__ import annotations

import asyncio

import pytest
from aiocoap import BAD_REQUEST, CHANGED, CREATED, DELETED, FORBIDDEN, NOT_FOUND, POST, Message

from devices.links.nbiot.server import serve
from devices.models import LinkEvent, NodePresence, UnknownEndpoint
from tests.integration.devices.lwm2m_node import (
    TRIAL,
    eventually,
    free_port,
    gateway_and_node,
    make_node,
    node_at,
    state_report,
)

pytestmark = pytest.mark.django_db(transaction=True)

DATAGRAMS = [
    b"",
    b"\x00",
    b"\xff" * 40,
    b"\x40\x01\x00\x01\xbf",
    b"\x40\x02\x12\x34\xb1\xff",
    bytes(range(64)),
    b"\x4f\x01\x00\x07",
]
PACKS = [
    b"",
    b"\xff",
    b"\xa0",
    b"\x81\xa1\x00\x01",
    b"\x81\xa2\x21\x6a/26241/0/2\x08\x41\x00",
    b"\x9f" * 900,
]


@pytest.mark.parametrize("query", ["lwm2m=1.0&b=UQ", "lwm2m=1.1&Q", "lwm2m=1.2&b=U&Q"])
def test_a_node_registers_updates_and_leaves(query: str) -> None:
    make_node()

    async def scenario() -> None:
        async with gateway_and_node() as (_, node):
            assert (await node.register(query)).code == CREATED
            assert (await node.update()).code == CHANGED
            presence = await eventually(lambda: NodePresence.objects.first())
            assert presence.awake_until > presence.last_seen_at
            assert (await node.deregister()).code == DELETED
            assert (await node.update()).code == NOT_FOUND

    asyncio.run(scenario())


def test_an_unknown_endpoint_is_refused_and_shown_to_the_operator() -> None:
    async def scenario() -> None:
        async with gateway_and_node() as (_, node):
            assert (await node.register(endpoint="stranger")).code == FORBIDDEN
            assert (await node.register(endpoint="stranger")).code == FORBIDDEN

    asyncio.run(scenario())
    unknown = UnknownEndpoint.objects.get()
    assert (unknown.endpoint, unknown.attempts) == ("stranger", 2)


@pytest.mark.parametrize("query", ["?lt=60", "?ep=node-1&lt=-1", "?ep=node-1&lwm2m=9.9", "?ep=%00", "?ep=" + "x" * 65])
def test_a_malformed_registration_is_refused(query: str) -> None:
    make_node()

    async def scenario() -> None:
        async with gateway_and_node() as (_, node):
            assert (await node.ask(Message(code=POST), "rd", query)).code == BAD_REQUEST

    asyncio.run(scenario())
    assert not UnknownEndpoint.objects.exists()


def test_a_node_of_a_killed_gateway_is_told_to_register_again_and_asked_for_its_report() -> None:
    make_node()
    port = free_port()

    async def scenario() -> None:
        async with node_at(port) as node:
            async with serve(host="127.0.0.1", port=port, awake_s=20):
                await node.register()
            async with serve(host="127.0.0.1", port=port, awake_s=20):
                node.objects.report = state_report(TRIAL, active=bytes(32))
                assert (await node.update()).code == NOT_FOUND
                assert (await node.send(node.objects.report)).code == NOT_FOUND
                assert (await node.register()).code == CREATED
                wanted = node.objects.report
                await eventually(
                    lambda: any(bytes(e.payload) == wanted for e in LinkEvent.objects.filter(kind="report"))
                )

    asyncio.run(scenario())


def test_a_registration_ends_with_its_lifetime() -> None:
    make_node()

    async def scenario() -> None:
        async with gateway_and_node() as (gateway, node):
            await node.register()
            session = gateway.registry.by_location[node.location.removeprefix("rd/")]
            gateway.registry.expire(now=session.expires_at)
            assert (await node.update()).code == NOT_FOUND

    asyncio.run(scenario())


def test_malformed_datagrams_do_not_stop_the_gateway() -> None:
    make_node()

    async def scenario() -> None:
        async with gateway_and_node() as (_, node):
            loop = asyncio.get_running_loop()
            port = int(node.server.rsplit(":", 1)[1])
            transport, _ = await loop.create_datagram_endpoint(
                asyncio.DatagramProtocol, remote_addr=("127.0.0.1", port)
            )
            for datagram in DATAGRAMS * 3:
                transport.sendto(datagram)
            assert (await node.register()).code == CREATED
            transport.close()
            for pack in PACKS:
                assert (await node.send_raw(pack)).code == BAD_REQUEST
            assert (await node.update()).code == CHANGED

    asyncio.run(scenario())
    events = LinkEvent.objects.filter(kind="report").values_list("payload", flat=True)
    assert [bytes(payload or b"") for payload in events] in ([], [state_report(0, active=bytes(32))])
