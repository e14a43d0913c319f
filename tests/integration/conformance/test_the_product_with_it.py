"""What the product asks of a ChirpStack, on the stand-in and on a live one: each call that it makes, with what comes back."""

from __future__ import annotations

import pytest
from chirpstack_api import api

from devices.links.lorawan import fragmentation, frames
from devices.links.lorawan.checking import check
from devices.links.lorawan.chirpstack import ChirpStack, NotAllowed, NotFound
from devices.links.lorawan.discovery import discover
from devices.links.lorawan.models import LoRaWanDevice, NetworkServer
from devices.links.lorawan.servers import add_server, change_server, set_up
from devices.models import Node, UnknownEndpoint
from tests import factories
from tests.integration.conformance.conftest import Contract

pytestmark = pytest.mark.django_db
BASE = "http://fleet.invalid"


@pytest.fixture
def kept(contract: Contract) -> NetworkServer:
    token = contract.application.metadata[0][1].removeprefix("Bearer ")
    fields = {"target": contract.address, "tenant_id": contract.tenant_id, "event_base_url": BASE}
    return add_server(actor="ada", token=token, name="contract", **fields)


def test_events_are_set_up_twice_and_another_receiver_stays(contract: Contract, kept: NetworkServer) -> None:
    theirs = api.HttpIntegration(
        application_id=contract.application_id,
        event_endpoint_url="http://theirs.invalid/a",
        headers={"Authorization": "Bearer theirs"},
    )
    request = api.CreateHttpIntegrationRequest(integration=theirs)
    contract.application.call(contract.application.applications.CreateHttpIntegration, request)

    for _ in range(2):
        assert set_up(server_id=kept.pk, actor="ada") == ["conformance"]
    found = ChirpStack(kept).integration(contract.application_id)

    assert found is not None
    assert found.urls == (kept.events_url, "http://theirs.invalid/a")
    assert found.headers["Authorization"] == "Bearer theirs"
    findings = {finding.subject: finding for finding in check(server_id=kept.pk)}
    assert findings["application conformance"].level == "good"


def test_frames_are_queued_in_order_seen_and_flushed(contract: Contract, kept: NetworkServer) -> None:
    client = ChirpStack(kept)
    fragment = fragmentation.data_fragment(1, bytes(239))
    first = client.enqueue(contract.dev_eui, port=frames.PORT, data=frames.ASK, confirmed=True)
    client.enqueue(contract.dev_eui, port=fragmentation.PORT, data=fragment, confirmed=False)

    queue = client.queue(contract.dev_eui)
    assert [(item.port, item.data, item.is_pending) for item in queue] == [
        (frames.PORT, frames.ASK, False),
        (fragmentation.PORT, fragment, False),
    ]
    assert queue[0].id == first
    client.flush(contract.dev_eui)
    assert client.queue(contract.dev_eui) == []


def test_a_tagged_device_becomes_a_node_that_has_neither_keys_nor_joined(
    contract: Contract, kept: NetworkServer
) -> None:
    assert discover(server_id=kept.pk, actor="ada").incomplete == 1
    assert "tag profile is missing" in UnknownEndpoint.objects.get(endpoint=contract.dev_eui).missing

    factories.make_profile(name="board"), factories.make_firmware(name="fw-1")
    devices = contract.application.devices
    device = contract.application.call(devices.Get, api.GetDeviceRequest(dev_eui=contract.dev_eui)).device
    device.tags.update({"profile": "board", "firmware_build": "fw-1"})
    contract.application.call(devices.Update, api.UpdateDeviceRequest(device=device))
    assert discover(server_id=kept.pk, actor="ada").registered == 1

    node = Node.objects.get(endpoint=contract.dev_eui)
    assert (node.site, LoRaWanDevice.objects.get(node=node).region) == ("plant-3", "EU868")
    messages = [finding.message for finding in check(server_id=kept.pk)]
    assert any("neither keys nor an activation" in message for message in messages)


def test_refusals_are_told_apart(contract: Contract, kept: NetworkServer) -> None:
    with pytest.raises(NotFound):
        ChirpStack(kept).device_profile("00000000-0000-0000-0000-000000000009")
    change_server(server_id=kept.pk, actor="ada", token="eyJhbGciOiJIUzI1NiJ9.e30.AAAA")
    kept.refresh_from_db()
    with pytest.raises(NotAllowed):
        ChirpStack(kept).queue(contract.dev_eui)
