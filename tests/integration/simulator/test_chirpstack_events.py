from __future__ import annotations

import json
from pathlib import Path

import grpc
import pytest
from chirpstack_api import api

from devices.simulator.chirpstack.publisher import Faults
from tests.integration.simulator.application import SECRET
from tests.integration.simulator.radio_fleet import GATEWAY, node_spec, scene


def test_an_uplink_is_posted_as_json_with_the_configured_headers(tmp_path: Path) -> None:
    with scene(tmp_path, node_spec(tags={"site": "plant-3"})) as at:
        at.receiver.wait(lambda: at.states())
        event = next(event for event in at.receiver.events if event.name == "up")
        document = json.loads(event.body)
        assert event.headers["Authorization"] == SECRET
        assert event.headers["Content-Type"] == "application/json"
        assert document["deviceInfo"]["devEui"] == at.dev_eui
        assert document["deviceInfo"]["deviceName"] == "node-1"
        assert document["deviceInfo"]["tags"] == {"site": "plant-3"}
        assert document["time"].endswith("000+00:00")
        assert (document["fPort"], document["dr"]) == (26, 5)
        assert document["rxInfo"][0]["gatewayId"] == GATEWAY
        assert document["txInfo"]["modulation"]["lora"]["spreadingFactor"] == 7


def test_a_default_is_left_out_of_the_json(tmp_path: Path) -> None:
    with scene(tmp_path) as at:
        at.receiver.wait(lambda: at.states())
        first = json.loads(next(event for event in at.receiver.events if event.name == "up").body)
        assert "fCnt" not in first
        assert "confirmed" not in first
        assert "adr" not in first


def test_events_are_protobuf_where_the_application_asks_for_it(tmp_path: Path) -> None:
    with scene(tmp_path, encoding=api.PROTOBUF) as at:
        at.receiver.wait(lambda: at.states())
        event = next(event for event in at.receiver.events if event.name == "up")
        assert event.headers["Content-Type"] == "application/octet-stream"
        assert event.message.device_info.dev_eui == at.dev_eui


def test_the_join_is_told_with_the_first_uplink_and_before_it(tmp_path: Path) -> None:
    with scene(tmp_path) as at:
        at.receiver.wait(lambda: at.states())
        assert [event.name for event in at.receiver.events[:2]] == ["join", "up"]
        assert at.receiver.named("join")[0].dev_addr == at.receiver.named("up")[0].dev_addr


def test_a_node_tells_its_digest_before_its_state_after_a_join(tmp_path: Path) -> None:
    with scene(tmp_path) as at:
        at.receiver.wait(lambda: at.states())
        digest, state = at.uplinks(26)[:2]
        assert digest[:2] == b"\x30\x01"
        assert digest[2:].hex() == at.status()["active"]
        assert state[2:6] == digest[2:6]


def test_doubled_and_reordered_events_come_when_they_are_asked_for(tmp_path: Path) -> None:
    with scene(tmp_path, faults=Faults(doubled=0.5, reordered=0.6)) as at:
        at.receiver.wait(lambda: len(at.receiver.named("up")) > 20)
        ids = [event.deduplication_id for event in at.receiver.named("up")]
        assert len(set(ids)) < len(ids)
        counters = [event.f_cnt for event in at.receiver.named("up")]
        assert counters != sorted(counters)


def test_events_that_the_application_refuses_are_not_repeated(tmp_path: Path) -> None:
    with scene(tmp_path) as at:
        at.receiver.status = 500
        at.receiver.wait(lambda: len(at.receiver.named("up")) > 3)
        ids = [event.deduplication_id for event in at.receiver.named("up")]
        assert len(set(ids)) == len(ids)
        assert at.stand_in.status()["totals"]["events_failed"] > 0


def test_a_tenants_key_opens_that_tenant_only(tmp_path: Path) -> None:
    with scene(tmp_path) as at:
        tenant_id = at.stand_in.call(lambda fleet: next(iter(fleet.chirpstack.store.tenants.rows)))
        application_id = at.stand_in.call(lambda fleet: next(iter(fleet.chirpstack.store.applications.rows)))
        own, other = (
            at.stand_in.call(lambda fleet, key=key: fleet.chirpstack.create_api_key("key", tenant_id=key))
            for key in (tenant_id, "00000000-0000-0000-0000-000000000001")
        )
        get, request = at.application.applications.Get, api.GetApplicationRequest(id=application_id)
        assert get(request, metadata=[("authorization", f"Bearer {own}")]).application.id == application_id
        with pytest.raises(grpc.RpcError) as refused:
            get(request, metadata=[("authorization", f"Bearer {other}")])
        assert (refused.value.code(), refused.value.details()) == (grpc.StatusCode.UNAUTHENTICATED, "")
