"""The screen of network servers: what each role sees and may do, and what the check said."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from django.test import Client

from devices.links.lorawan.chirpstack import TOKEN_PURPOSE
from devices.links.lorawan.models import FragmentSession, LoRaWanDevice, NetworkServer
from devices.models import Delivery, NodeRadio
from fleet.accounts.models import Role
from fleet.audit.models import AuditEntry
from fleet.sealing import seal
from tests import factories
from tests.integration.lorawan.far_end import APPLICATION, TOKEN, FarEnd

SignIn = Callable[[Role], Client]
pytestmark = pytest.mark.django_db


@pytest.fixture
def far_end() -> Iterator[FarEnd]:
    with FarEnd() as running:
        yield running


def values(target: str, **more: str) -> dict[str, str]:
    return {
        "name": "plant",
        "target": target,
        "token": TOKEN,
        "region": "EU868",
        "event_base_url": "https://fleet.example.com",
        "event_encoding": "json",
    } | more


def test_an_admin_adds_a_server_sets_it_up_and_reads_what_is_missing(sign_in: SignIn, far_end: FarEnd) -> None:
    client = sign_in(Role.ADMIN)
    assert "No network server is known yet" in client.get("/network-servers/").content.decode()

    assert client.post("/network-servers/new/", values(far_end.target)).status_code == 302
    server = NetworkServer.objects.get()
    assert "Not checked yet: plant" in client.get("/network-servers/").content.decode()

    client.post(f"/network-servers/{server.pk}/set-up/")
    body = client.get("/network-servers/").content.decode()
    assert "Its events come here." in body
    assert "No event has ever come" in body
    assert far_end.integrations[APPLICATION].event_endpoint_url == server.events_url
    assert TOKEN not in body
    assert TOKEN not in client.get(f"/network-servers/{server.pk}/").content.decode()

    client.post(f"/network-servers/{server.pk}/discover/")
    assert "plant: 0 devices" in client.get("/network-servers/").content.decode()


def test_a_change_without_a_key_keeps_the_one_that_is_there(sign_in: SignIn, far_end: FarEnd) -> None:
    client = sign_in(Role.ADMIN)
    client.post("/network-servers/new/", values(far_end.target))
    sealed = bytes(NetworkServer.objects.get().token_sealed)
    server = NetworkServer.objects.get()
    client.post(f"/network-servers/{server.pk}/", values(far_end.target, token="", region="US915"))
    server.refresh_from_db()
    assert (server.region, bytes(server.token_sealed)) == ("US915", sealed)
    assert AuditEntry.objects.filter(action="network_server.changed").count() == 1


@pytest.mark.parametrize(("change", "words"), [({"target": "x"}, "host:port"), ({"token": ""}, "API key")])
def test_a_bad_value_is_shown_at_its_field(sign_in: SignIn, change: dict[str, str], words: str) -> None:
    answer = sign_in(Role.ADMIN).post("/network-servers/new/", values("host:1") | change)
    assert answer.status_code == 400
    assert words in answer.content.decode()
    assert not NetworkServer.objects.exists()


@pytest.mark.parametrize("role", [Role.VIEWER, Role.OPERATOR, Role.APPROVER])
def test_only_an_admin_changes_servers(sign_in: SignIn, far_end: FarEnd, role: Role) -> None:
    server = NetworkServer.objects.create(
        name="plant", target=far_end.target, token_sealed=seal(b"x", purpose=TOKEN_PURPOSE), event_base_url="http://h"
    )
    client = sign_in(role)
    assert "plant" in client.get("/network-servers/").content.decode()
    for address in ("new/", f"{server.pk}/", f"{server.pk}/set-up/", f"{server.pk}/discover/"):
        assert client.post(f"/network-servers/{address}", values("a:1")).status_code == 403
    assert client.post(f"/network-servers/{server.pk}/check/").status_code == (403 if role == Role.VIEWER else 302)
    assert bool(far_end.calls) == (role != Role.VIEWER)
    assert client.post(f"/network-servers/{server.pk}/nonsense/").status_code == 404


def test_a_server_that_is_down_is_said_so(sign_in: SignIn) -> None:
    client = sign_in(Role.ADMIN)
    client.post("/network-servers/new/", values("127.0.0.1:1"))
    client.post(f"/network-servers/{NetworkServer.objects.get().pk}/check/")
    assert "Not reached: plant" in client.get("/network-servers/").content.decode()


def test_an_admin_removes_a_server_after_reading_what_becomes_of_its_nodes(sign_in: SignIn) -> None:
    server = NetworkServer.objects.create(name="plant", target="h:1", token_sealed=b"x", event_base_url="http://h")
    node = factories.make_node(link="lorawan", endpoint="0a00000000000001")
    LoRaWanDevice.objects.create(node=node, server=server, region="EU868")
    address = f"/network-servers/{server.pk}/"
    assert sign_in(Role.APPROVER).post(f"{address}remove/").status_code == 403
    client = sign_in(Role.ADMIN)
    assert "1 node stays registered and is reached no longer" in client.get(address).content.decode()

    body = client.post(f"{address}remove/", follow=True).content.decode()

    assert "plant is removed." in body
    assert not NetworkServer.objects.exists()
    node.refresh_from_db()
    assert AuditEntry.objects.get(action="network_server.removed").before["name"] == "plant"


def test_a_node_page_shows_how_well_the_node_is_heard(sign_in: SignIn) -> None:
    node = factories.make_node(link="lorawan", endpoint="0a00000000000001")
    assert "not heard yet" in sign_in(Role.VIEWER).get(f"/nodes/{node.pk}/").content.decode()
    server = NetworkServer.objects.create(name="plant", target="h:1", token_sealed=b"x", event_base_url="http://h")
    LoRaWanDevice.objects.create(node=node, server=server, region="EU868", gateway_refusals=3)
    NodeRadio.objects.create(
        node=node,
        at=factories.NOW,
        region="EU868",
        data_rate=3,
        rssi_dbm=-97,
        snr_db=4.5,
        gateway_id="0016c001f153a14c",
        frame_counter=812,
    )
    delivery = Delivery.objects.create(
        node=node,
        link="lorawan",
        reference=1,
        command=b"x",
        token="t",
        bytes_sent=4096,
        created_at=factories.NOW,
        updated_at=factories.NOW,
    )
    FragmentSession.objects.create(delivery=delivery, frames_sent=41, fragment_bytes=112, fragments=37)
    body = sign_in(Role.VIEWER).get(f"/nodes/{node.pk}/").content.decode()
    for words in ("DR3 in EU868, up to 115 B", "-97 dBm, SNR 4.5 dB", "0016c001f153a14c", "41 frames", "number 812"):
        assert words in body, words
    other = factories.make_node()
    assert "not reported over this link" in sign_in(Role.VIEWER).get(f"/nodes/{other.pk}/").content.decode()
