from __future__ import annotations

import json
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from chirpstack_api import api

from tests.integration.devices.simulated import OLD, OLD_DIGEST, SIGNER, TARGET_DIGEST, bundle
from tests.integration.simulator.application import Application, Receiver
from tests.integration.simulator.radio_fleet import GATEWAY, node_spec


def write_spec(directory: Path, **fields: Any) -> Path:
    (directory / "old.tflite").write_bytes(OLD)
    path = directory / "spec.json"
    document = {
        "public_keys": [SIGNER.public_key.hex()],
        "images": {OLD_DIGEST: "old.tflite"},
        "gateways": [{"gateway_id": GATEWAY, "name": "roof", "duty_cycle": False}],
        "nodes": [{**asdict(node_spec(tags={"site": "plant-3"})), **fields}, {"link": "nbiot", "endpoint": "other"}],
    }
    path.write_text(json.dumps(document))
    return path


class Program:
    def __init__(self, state: Path, spec: Path | None) -> None:
        arguments = ["--grpc", "127.0.0.1:0", "--time-scale", "600", "--seed", "3", "--state", str(state)]
        if spec is not None:
            arguments += ["--spec", str(spec)]
        command = [sys.executable, "-m", "devices.simulator.lorawan", *arguments]
        self.state = state
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        first = self.process.stdout.readline()
        self.address = first.split()[3].rstrip(",") if first else ""

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(15)

    def application(self) -> Application:
        return Application(self.address, (self.state / "token").read_text().strip())

    def status(self) -> dict[str, Any]:
        return json.loads((self.state / "status.json").read_text())  # type: ignore[no-any-return]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.close()


def test_the_program_serves_its_nodes_and_tells_of_them(tmp_path: Path, receiver: Receiver) -> None:
    program = Program(tmp_path / "state", write_spec(tmp_path))
    application = program.application()
    tenants = application.call(application.tenants.List, api.ListTenantsRequest(limit=10)).result
    request = api.ListApplicationsRequest(tenant_id=tenants[0].id, limit=10)
    application_id = application.call(application.applications.List, request).result[0].id
    listed = application.call(
        application.devices.List, api.ListDevicesRequest(application_id=application_id, limit=10)
    ).result
    assert [(device.name, dict(device.tags)) for device in listed] == [("node-1", {"site": "plant-3"})]
    application.integrate(application_id, receiver.url)
    receiver.wait(lambda: receiver.named("up"))
    application.send_block(listed[0].dev_eui, bundle(), 239)
    receiver.wait(lambda: any(event.data[:1] == b"\x14" for event in receiver.named("up")), 40)
    application.close()
    assert program.end() == 0
    status = program.status()
    node = status["nodes"]["node-1"]
    assert (node["active"], node["standby"], node["state"]) == (TARGET_DIGEST, OLD_DIGEST, "confirmed")
    assert status["simulated_s"] > 0
    assert status["gateways"][GATEWAY]["airtime_s"]["868.0-868.6"] > 1
    assert status["totals"]["frames_down"] >= 17
    flash = (tmp_path / "state" / "node-1.flash").read_bytes()
    assert flash[: len(OLD)] == OLD


def test_the_token_is_for_its_owner_only_and_outlives_a_kill_with_what_was_set_up(
    tmp_path: Path, receiver: Receiver
) -> None:
    spec, state = write_spec(tmp_path), tmp_path / "state"
    program = Program(state, spec)
    token = (state / "token").read_text()
    assert [stat.S_IMODE((state / name).stat().st_mode) for name in ("token", "chirpstack.json")] == [0o600, 0o600]
    application = program.application()
    tenant_id = application.call(application.tenants.List, api.ListTenantsRequest(limit=1)).result[0].id
    request = api.ListApplicationsRequest(tenant_id=tenant_id, limit=10)
    application_id = application.call(application.applications.List, request).result[0].id
    application.integrate(application_id, receiver.url)
    receiver.wait(lambda: len(receiver.named("up")) > 15)  # a second and more: it has been written
    application.close()
    program.end(signal.SIGKILL)
    before = len(receiver.named("join"))
    program = Program(state, spec)
    assert (state / "token").read_text() == token
    receiver.wait(lambda: len(receiver.named("join")) > before)
    assert program.end() == 0


def test_without_a_specification_it_is_a_chirpstack_without_nodes(tmp_path: Path) -> None:
    program = Program(tmp_path / "state", None)
    application = program.application()
    assert application.call(application.tenants.List, api.ListTenantsRequest(limit=10)).total_count == 1
    application.close()
    assert program.end() == 0
    assert program.status()["totals"]["nodes"] == 0


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"behaviour": "lazy"}, "behaviour 'lazy'"),
        ({"data_rate": 6}, "must be 0..5"),
        ({"gateways": ["ffffffffffffffff"]}, "are not among gateways"),
        ({"forward_error_correction": "raptor"}, "must be one of ts004-v1, ts004-v2"),
        ({"dev_eui": "0102"}, "must be 8 bytes in hex"),
        ({"loss": 1.0}, "must be 0 or more and below 1"),
        ({"colour": "red"}, "unknown fields ['colour']"),
    ],
)
def test_a_wrong_specification_is_named_and_ends_with_two(tmp_path: Path, fields: dict[str, Any], words: str) -> None:
    program = Program(tmp_path / "state", write_spec(tmp_path, **fields))
    _, errors = program.process.communicate(timeout=15)
    assert program.process.returncode == 2
    assert words in errors
