"""What ChirpStack posts: authenticated, in both encodings, doubled and reordered, counted once."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from chirpstack_api import api, integration
from django.test import Client
from django.utils import timezone

from devices.links.lorawan.events import BODY_BYTES_MAX, BadEvent, read_event
from devices.links.lorawan.models import LoRaWanDevice, NetworkEvent, NetworkEventKind, NetworkServer
from devices.models import LinkEvent, NodePresence, NodeRadio, UnknownEndpoint
from devices.tasks import feed_lorawan
from tests import factories
from tests.integration.lorawan.conftest import SECRET, Scene
from tests.integration.lorawan.far_end import ClassA, FarEnd

PUBLISHED = (
    b'{"deduplicationId":"3ac7e3c4-4401-4b8d-9386-a5c902f9202d","time":"2022-07-18T09:34:15.775023242+00:00",'
    b'"deviceInfo":{"devEui":"0101010101010101","deviceClassEnabled":"CLASS_A","tags":{"key":"v"}},"dr":1,'
    b'"fPort":201,"data":"AQDEgAE=","rxInfo":[{"gatewayId":"0016c001f153a14c","rssi":-48,"snr":9}],"futureField":1}'
)


def test_a_published_uplink_is_read_with_fields_of_a_later_version() -> None:
    event = read_event(NetworkEventKind.UP, PUBLISHED, is_json=True)
    assert (event.dev_eui, event.body["f_cnt"], event.body["dr"]) == ("0101010101010101", 0, 1)
    assert (event.body["data"], event.body["rssi"], event.body["snr"]) == ("0100c48001", -48, 9.0)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"{", "body"),
        (b"\xff\xfe", "body"),
        (b"[" * 5000, "body"),
        (b"{}", "devEui"),
        (b'{"deviceInfo":{"devEui":"xyz"}}', "devEui"),
        (b'{"deviceInfo":{"devEui":"0101010101010101"},"dr":16}', "dr"),
        (b'{"deviceInfo":{"devEui":"0101010101010101"},"joinServerContext":{"sessionKeyId":"ab"}}', "encrypted"),
    ],
)
def test_a_bad_body_is_refused_with_its_field(body: bytes, words: str) -> None:
    with pytest.raises(BadEvent, match=words):
        read_event(NetworkEventKind.UP, body, is_json=True)


def test_a_protobuf_body_that_is_none_is_refused() -> None:
    with pytest.raises(BadEvent, match="body"):
        read_event(NetworkEventKind.UP, b"\xff\xff\xff", is_json=False)


@pytest.mark.parametrize("encoding", [api.JSON, api.PROTOBUF])
def test_an_uplink_leaves_a_sign_of_life_and_the_radio(scene: Scene, encoding: Any) -> None:
    scene.far_end.encoding = encoding
    scene.radio.rate = 3
    scene.radio.uplink()
    feed_lorawan()
    radio = NodeRadio.objects.get(node=scene.node)
    assert (radio.region, radio.data_rate, radio.rssi_dbm, radio.snr_db) == ("EU868", 3, -97, 4.5)
    assert (radio.gateway_id, radio.frame_counter) == ("0016c001f153a14c", 2)
    assert NodePresence.objects.get(node=scene.node).address == "gateway 0016c001f153a14c"
    assert NetworkServer.objects.get().last_event_at is not None


@pytest.mark.parametrize("header", ["", "Bearer wrong", f"Basic {SECRET}", SECRET, "Bearer "])
def test_a_wrong_secret_is_refused_and_nothing_kept(scene: Scene, header: str) -> None:
    before = NetworkEvent.objects.count()
    scene.far_end.authorization = header
    status, reason = scene.far_end.post("up", scene.radio.event())
    assert status == 401
    assert "Authorization" in reason
    assert NetworkEvent.objects.count() == before


def test_an_unknown_server_is_refused_like_a_wrong_secret(scene: Scene) -> None:
    scene.far_end.post_to = scene.far_end.post_to.replace(f"/{scene.server.pk}/", f"/{scene.server.pk + 1}/")
    assert scene.far_end.post("up", scene.radio.event())[0] == 401


def test_a_body_that_is_too_large_is_refused_unread(scene: Scene) -> None:
    answer = Client().post(
        f"/links/lorawan/{scene.server.pk}/events?event=up",
        data=bytes(BODY_BYTES_MAX + 1),
        content_type="application/json",
        headers={"Authorization": f"Bearer {SECRET}"},
    )
    assert answer.status_code == 413


def test_a_bad_event_is_answered_400_with_the_reason(scene: Scene) -> None:
    event = scene.radio.event()
    event.device_info.dev_eui = "nonsense"
    status, reason = scene.far_end.post("up", event)
    assert status == 400
    assert "devEui" in reason


def test_events_of_no_use_are_accepted_and_dropped(scene: Scene) -> None:
    before = NetworkEvent.objects.count()
    assert scene.far_end.post("status", integration.StatusEvent(device_info=scene.radio.info))[0] == 204
    assert NetworkEvent.objects.count() == before


def test_a_device_that_no_node_stands_for_is_noted(server: NetworkServer, far_end: FarEnd) -> None:
    radio = ClassA(far_end, dev_eui="a1a2a3a4a5a6a7a8")
    radio.uplink()
    radio.uplink()
    unknown = UnknownEndpoint.objects.get(link="lorawan")
    assert (unknown.endpoint, unknown.address, unknown.attempts) == (radio.dev_eui, "ChirpStack here", 2)
    assert "discover" in unknown.missing
    assert not NetworkEvent.objects.exists()


def test_a_doubled_event_counts_once(scene: Scene) -> None:
    scene.radio.outbox.append((26, scene.radio.report()))
    event = scene.radio.uplink()
    assert scene.far_end.post("up", event)[0] == 204
    feed_lorawan()
    assert scene.far_end.post("up", event)[0] == 204
    feed_lorawan()
    assert scene.events() == ["holds", "report", "report"]


def test_a_frame_that_comes_again_under_another_id_counts_once(scene: Scene) -> None:
    scene.radio.outbox.append((26, scene.radio.report()))
    event = scene.radio.uplink()
    feed_lorawan()
    uplinks = LoRaWanDevice.objects.get().uplinks
    event.deduplication_id = "another"
    assert scene.far_end.post("up", event)[0] == 204
    feed_lorawan()
    assert scene.events() == ["holds", "report", "report"]
    assert LoRaWanDevice.objects.get().uplinks == uplinks


def test_the_same_counter_after_a_join_is_another_frame(scene: Scene) -> None:
    scene.radio.join()
    for _ in range(2):
        scene.radio.uplink()
    feed_lorawan()
    assert scene.events() == ["holds", "report", "holds", "report"]


def test_a_device_whose_counters_begin_anew_without_a_join_is_heard_again(scene: Scene) -> None:
    scene.radio.counter = 500
    scene.radio.uplink()
    feed_lorawan()
    # Reset: ChirpStack is told not to check its counters, so no event says so.
    scene.radio.counter, scene.radio.state, scene.radio.rate = 0, 3, 2
    scene.radio.outbox.append((26, scene.radio.report()))
    scene.radio.uplink()
    feed_lorawan()
    device = LoRaWanDevice.objects.get()
    assert (device.frame_counter, device.data_rate, device.joined_at is not None) == (0, 2, True)
    assert bytes(device.last_report or b"")[0] == 0x13
    assert NodeRadio.objects.get().frame_counter == 0


def test_the_same_frame_after_a_while_is_that_of_a_device_which_was_reset(scene: Scene) -> None:
    def again() -> None:
        scene.radio.counter = 40
        scene.radio.outbox.append((26, scene.radio.report()))
        scene.radio.uplink()
        feed_lorawan()

    again()
    before = LoRaWanDevice.objects.get().uplinks
    NetworkEvent.objects.update(at=timezone.now() - timedelta(minutes=2))
    again()
    assert LoRaWanDevice.objects.get().uplinks == before + 1
    again()
    assert LoRaWanDevice.objects.get().uplinks == before + 1


def test_a_late_report_is_passed_on_but_is_not_the_newest(scene: Scene) -> None:
    early = scene.radio.event(26, scene.radio.report())
    scene.radio.state = 3
    late = scene.radio.event(26, scene.radio.report())
    for event in (late, early):
        assert scene.far_end.post("up", event)[0] == 204
        feed_lorawan()
    assert scene.events() == ["holds", "report", "report", "report"]
    assert bytes(LoRaWanDevice.objects.get().last_report or b"")[0] == 0x13
    assert NodeRadio.objects.get().frame_counter == late.f_cnt


def test_the_first_event_of_a_registered_node_tells_how_it_is_reached(server: NetworkServer, far_end: FarEnd) -> None:
    radio = ClassA(far_end, dev_eui="b1b2b3b4b5b6b7b8")
    node = factories.make_node(link="lorawan", endpoint=radio.dev_eui)
    radio.uplink()
    device = LoRaWanDevice.objects.get(node=node)
    assert (device.server, device.region) == (server, "EU868")
    assert device.application_id.endswith("0001")


def test_a_gateway_that_could_not_send_is_counted(scene: Scene) -> None:
    log = integration.LogEvent(device_info=scene.radio.info, code=integration.DOWNLINK_GATEWAY, description="TOO_LATE")
    assert scene.far_end.post("log", log)[0] == 204
    feed_lorawan()
    assert LoRaWanDevice.objects.get().gateway_refusals == 1


def test_a_worker_that_dies_over_events_leaves_them_for_the_next(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    from devices.links.lorawan import intake

    def killed(*_: object) -> None:
        raise SystemExit

    scene.radio.outbox.append((26, scene.radio.report()))
    scene.radio.uplink()
    before = LinkEvent.objects.count()
    monkeypatch.setattr(intake, "_note_radio", killed)
    with pytest.raises(SystemExit):
        feed_lorawan()
    assert LinkEvent.objects.count() == before
    monkeypatch.undo()
    feed_lorawan()
    assert LinkEvent.objects.count() == before + 1
