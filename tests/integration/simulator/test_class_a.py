from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from chirpstack_api import api, common
from google.protobuf.timestamp_pb2 import Timestamp

from devices.simulator.chirpstack import eu868
from devices.simulator.chirpstack.gateway import GatewaySpec
from devices.simulator.chirpstack.network_server import Windows
from tests.integration.simulator.radio_fleet import GATEWAY, node_spec, scene

TELL = b"\x02"


def test_an_item_leaves_after_the_next_uplink_and_its_sending_is_told(tmp_path: Path) -> None:
    with scene(tmp_path) as at:
        at.receiver.wait(lambda: at.states())
        item = at.application.enqueue(at.dev_eui, 26, TELL)
        sent = at.receiver.wait(lambda: at.receiver.named("txack"))[0]
        assert (sent.queue_item_id, sent.f_cnt_down, sent.gateway_id) == (item, 0, GATEWAY)
        assert sent.tx_info.frequency in eu868.UPLINK_CHANNELS
        assert at.application.queue(at.dev_eui) == []


def test_the_node_polls_on_while_more_items_wait(tmp_path: Path) -> None:
    with scene(tmp_path, node_spec(wake_interval_s=1200.0)) as at:
        at.receiver.wait(lambda: at.states(), 30)
        for _ in range(6):
            at.application.enqueue(at.dev_eui, 201, b"\x08\x01\x00abc")  # of no session: nothing to answer
        sent = at.receiver.wait(lambda: len(at.receiver.named("txack")) == 6 and at.receiver.named("txack"), 30)
        assert [event.f_cnt_down for event in sent] == list(range(6))
        spread = (sent[-1].time.ToDatetime() - sent[0].time.ToDatetime()).total_seconds()
        assert spread * 600 < 1200  # within one wake interval


def test_a_confirmed_item_is_pending_until_the_next_uplink_acknowledges_it(tmp_path: Path) -> None:
    with scene(tmp_path) as at:
        at.receiver.wait(lambda: at.states())
        item = at.application.enqueue(at.dev_eui, 26, TELL, confirmed=True)
        ack = at.receiver.wait(lambda: at.receiver.named("ack"))[0]
        assert (ack.queue_item_id, ack.acknowledged, ack.f_cnt_down) == (item, True, 0)
        assert len(at.digests()) >= 1


def test_an_unacknowledged_item_is_given_up_at_the_next_uplink(tmp_path: Path) -> None:
    with scene(tmp_path, node_spec(wake_interval_s=60.0)) as at:
        at.receiver.wait(lambda: at.states())
        at.stand_in.call(lambda fleet: _deafen(fleet))
        item = at.application.enqueue(at.dev_eui, 26, TELL, confirmed=True)
        ack = at.receiver.wait(lambda: at.receiver.named("ack"))[0]
        assert (ack.queue_item_id, ack.acknowledged) == (item, False)


def _deafen(fleet: object) -> None:
    node = next(iter(fleet.nodes.values()))  # type: ignore[attr-defined]
    link = node.modem.links[GATEWAY]
    node.modem.links = {GATEWAY: type(link)(link.loss_up, 1.0)}


def test_items_too_long_for_the_data_rate_are_dropped_and_told(tmp_path: Path) -> None:
    with scene(tmp_path, node_spec(data_rate=0, wake_interval_s=300.0)) as at:
        at.receiver.wait(lambda: at.states())
        item = at.application.enqueue(at.dev_eui, 201, bytes(52))
        log = at.receiver.wait(lambda: at.receiver.named("log"))[0]
        assert log.code == 1  # DOWNLINK_PAYLOAD_SIZE
        assert dict(log.context) == {"max_payload_size": "51", "item_size": "52", "queue_item_id": item}


def test_items_past_their_date_are_dropped_and_told(tmp_path: Path) -> None:
    with scene(tmp_path) as at:
        at.receiver.wait(lambda: at.states())
        past = Timestamp()
        past.FromDatetime(datetime.now(UTC) - timedelta(seconds=1))
        item = at.application.enqueue(at.dev_eui, 26, TELL, expires_at=past)
        log = at.receiver.wait(lambda: at.receiver.named("log"))[0]
        assert (log.code, log.context["queue_item_id"]) == (11, item)  # EXPIRED


def test_a_new_join_flushes_the_queue_and_counts_from_zero(tmp_path: Path) -> None:
    with scene(tmp_path) as at:
        at.receiver.wait(lambda: len(at.states()) > 2)
        at.application.enqueue(at.dev_eui, 26, bytes(40))
        at.stand_in.call(lambda fleet: next(iter(fleet.nodes.values()))._lose_ram(fleet.chirpstack.timeline.catch_up()))
        at.application.enqueue(at.dev_eui, 26, bytes(40))
        at.receiver.wait(lambda: len(at.receiver.named("join")) == 2)
        assert at.application.queue(at.dev_eui) == []
        request = api.GetDeviceActivationRequest(dev_eui=at.dev_eui)
        activation = at.application.call(at.application.devices.GetActivation, request).device_activation
        assert activation.dev_addr == at.receiver.named("join")[1].dev_addr
        assert activation.a_f_cnt_down == 0


def test_a_slow_backhaul_misses_every_window_and_the_item_stays(tmp_path: Path) -> None:
    gateway = GatewaySpec(GATEWAY, duty_cycle=False)
    with scene(tmp_path, gateways=(gateway,)) as at:
        at.receiver.wait(lambda: at.states())
        late = GatewaySpec(GATEWAY, backhaul_s=3.0)
        at.stand_in.call(lambda fleet: setattr(fleet.chirpstack.gateways[GATEWAY], "spec", late))
        item = at.application.enqueue(at.dev_eui, 26, TELL)
        log = at.receiver.wait(lambda: at.receiver.named("log"))[0]
        assert (log.code, log.description) == (8, "TOO_LATE")  # DOWNLINK_GATEWAY
        assert [kept.id for kept in at.application.queue(at.dev_eui)] == [item]


def test_an_exhausted_duty_cycle_moves_to_rx2_and_then_refuses(tmp_path: Path) -> None:
    gateway = GatewaySpec(GATEWAY)
    with scene(tmp_path, node_spec(data_rate=3), gateways=(gateway,), windows=Windows(0, 3)) as at:
        at.receiver.wait(lambda: at.states())
        at.stand_in.call(lambda fleet: _exhaust(fleet, "868.0-868.6"))
        at.application.enqueue(at.dev_eui, 26, TELL)
        sent = at.receiver.wait(lambda: at.receiver.named("txack"))[0]
        assert sent.tx_info.frequency == eu868.RX2_FREQUENCY
        at.stand_in.call(lambda fleet: _exhaust(fleet, "869.4-869.65"))
        at.application.enqueue(at.dev_eui, 26, TELL)
        log = at.receiver.wait(lambda: at.receiver.named("log"))[0]
        assert log.description == "DUTY_CYCLE_OVERFLOW"
        assert at.stand_in.status()["totals"]["duty_cycle_refusals"] >= 2


def _exhaust(fleet: object, band: str) -> None:
    gateway = fleet.chirpstack.gateways[GATEWAY]  # type: ignore[attr-defined]
    gateway.ledger.add(band, fleet.chirpstack.clock.now(), 3600.0)  # type: ignore[attr-defined]


def test_a_payload_too_long_for_rx2_waits_while_an_empty_frame_says_so(tmp_path: Path) -> None:
    gateway = GatewaySpec(GATEWAY)
    with scene(tmp_path, gateways=(gateway,)) as at:
        at.receiver.wait(lambda: at.states())
        at.stand_in.call(lambda fleet: _exhaust(fleet, "868.0-868.6"))
        before = at.status()["messages_down"]
        item = at.application.enqueue(at.dev_eui, 201, bytes(200))
        at.receiver.wait(lambda: at.status()["messages_down"] > before)
        assert [kept.id for kept in at.application.queue(at.dev_eui)] == [item]
        assert at.receiver.named("txack") == []


def test_lost_frames_cost_more_of_them(tmp_path: Path) -> None:
    frames = []
    for loss in (0.0, 0.4):
        with scene(tmp_path / str(loss), node_spec(loss=loss, wake_interval_s=30.0)) as at:
            at.receiver.wait(lambda at=at: at.states())
            for _ in range(20):
                at.application.enqueue(at.dev_eui, 26, TELL)
            at.receiver.wait(lambda at=at: len(at.receiver.named("txack")) == 20, 40)
            frames.append(at.status()["messages_up"])
    assert frames[1] > frames[0]


def test_frames_of_two_nodes_over_each_other_are_lost(tmp_path: Path) -> None:
    nodes = [node_spec(f"node-{number}", data_rate=0, wake_interval_s=200.0) for number in range(40)]
    with scene(tmp_path, *nodes) as at:
        at.receiver.wait(lambda: len(at.receiver.named("up")) > 150, 40)
        assert at.stand_in.status()["totals"]["collided"] > 0


def test_a_device_with_another_key_does_not_join_and_the_log_says_why(tmp_path: Path) -> None:
    with scene(tmp_path, node_spec(wake_interval_s=3000.0)) as at:
        keys = api.DeviceKeys(dev_eui=at.dev_eui, nwk_key="ff" * 16)
        at.application.call(at.application.devices.UpdateKeys, api.UpdateDeviceKeysRequest(device_keys=keys))
        log = at.receiver.wait(lambda: at.receiver.named("log"), 30)[0]
        assert log.code == 4  # OTAA
        assert at.stand_in.status()["totals"]["registered"] == 0


def test_link_metrics_count_what_was_heard(tmp_path: Path) -> None:
    with scene(tmp_path) as at:
        at.receiver.wait(lambda: len(at.receiver.named("up")) >= 4)
        now = datetime.now(UTC)
        request = api.GetDeviceLinkMetricsRequest(dev_eui=at.dev_eui, aggregation=common.HOUR)
        request.start.FromDatetime(now - timedelta(hours=2))
        request.end.FromDatetime(now)
        answer = at.application.call(at.application.devices.GetLinkMetrics, request)
        assert sum(answer.rx_packets.datasets[0].data) >= 4
        assert [row.label for row in answer.rx_packets_per_dr.datasets] == ["5"]
        assert -130 < answer.gw_rssi.datasets[0].data[-1] < -60
