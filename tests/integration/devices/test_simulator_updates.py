from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from aiocoap import BAD_REQUEST, CHANGED, FORBIDDEN, METHOD_NOT_ALLOWED, PUT

from devices.simulator.node import Node
from devices.wire import Cause, NodeState, decode_state
from tests.integration.devices.coap_gateway import CoapGateway, until
from tests.integration.devices.simulated import (
    OLD,
    OLD_DIGEST,
    PREIMAGE,
    TARGET,
    TARGET_DIGEST,
    bundle,
    one_node,
    play,
)
from updates.patches.revert import revert_command

AWAKE = {"wake_interval_s": 1000.0, "awake_s": 900.0}


async def install(gateway: CoapGateway, node: Node, package: bytes) -> None:
    """Offer and execute; returns once the node has ended the update one way or the other."""
    await gateway.offer("node-1", package)
    await until(lambda: node.firmware.memory.package_state != 1)
    if node.firmware.memory.package_state == 2:
        assert await gateway.execute("node-1") == CHANGED
        await until(lambda: node.firmware.memory.package_state == 0)
    await until(lambda: not node.firmware.report_due)


def last_report(gateway: CoapGateway) -> tuple[NodeState, Cause]:
    report = decode_state(gateway.states()[-1])
    return report.state, report.cause


@pytest.fixture(autouse=True)
def early_wake(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first wake of a node comes at once instead of at a random time of its interval."""
    monkeypatch.setattr("devices.simulator.node.random.Random.uniform", lambda self, low, high: low)


def test_a_node_tries_and_confirms_a_full_image(tmp_path: Path) -> None:
    async def scene() -> None:
        async with one_node(tmp_path, **AWAKE) as (gateway, node):
            assert await gateway.read("node-1", "/26241/0/0") == bytes.fromhex(OLD_DIGEST)
            assert await gateway.read("node-1", "/26241/0/1") == b""
            await install(gateway, node, bundle())
            await until(lambda: last_report(gateway)[0] == NodeState.CONFIRMED)
            assert [decode_state(report).state for report in gateway.states()] == [
                NodeState.IDLE,
                NodeState.STAGED,
                NodeState.TRIAL,
                NodeState.CONFIRMED,
            ]
            assert (await gateway.read("node-1", "/5/0/3"), await gateway.read("node-1", "/5/0/5")) == (b"0", b"1")
            assert await gateway.read("node-1", "/5/0/7") == TARGET_DIGEST.encode()
            assert (node.status()["active"], node.status()["standby"]) == (TARGET_DIGEST, OLD_DIGEST)
            assert bytes(node.firmware.flash.slots[1][: len(TARGET)]) == TARGET

    play(scene())


def test_a_node_applies_a_patch_to_the_bytes_it_holds(tmp_path: Path) -> None:
    target = OLD[:2000] + b"\x05\x06\x07" + OLD[2003:]
    package = bundle(target, base=OLD)
    assert len(package) < 700

    async def scene() -> None:
        async with one_node(tmp_path, **AWAKE) as (gateway, node):
            await install(gateway, node, package)
            assert node.firmware.agent.state == "confirmed"
            assert bytes(node.firmware.flash.slots[1][: len(target)]) == target

    play(scene())


@pytest.mark.parametrize(
    ("package", "cause"),
    [
        (lambda: bundle(class_hash=b"othr"), Cause.WRONG_CLASS),
        (lambda: bundle(TARGET + bytes(32), base=TARGET, self_test=bytes(8)), Cause.WRONG_BASE),
        (lambda: bundle()[:60] + b"\x00" + bundle()[61:], Cause.BAD_SIGNATURE),
    ],
    ids=["class", "base", "signature"],
)
def test_a_refused_package_is_reported_after_its_first_block_and_leaves_the_slots(
    tmp_path: Path, package: Any, cause: Cause
) -> None:
    async def scene() -> None:
        async with one_node(tmp_path, **AWAKE) as (gateway, node):
            await install(gateway, node, package())
            await until(lambda: last_report(gateway) == (NodeState.REJECTED, cause))
            assert gateway.offsets == [0]
            assert (node.status()["active"], node.status()["standby"]) == (OLD_DIGEST, "")

    play(scene())


def test_a_lower_sequence_is_refused_after_a_higher_one(tmp_path: Path) -> None:
    async def scene() -> None:
        async with one_node(tmp_path, **AWAKE) as (gateway, node):
            await install(gateway, node, bundle(sequence=7))
            await install(gateway, node, bundle(OLD, sequence=7))
            await until(lambda: last_report(gateway) == (NodeState.REJECTED, Cause.LOWER_SEQUENCE))
            assert (node.status()["active"], node.status()["standby"]) == (TARGET_DIGEST, OLD_DIGEST)

    play(scene())


def test_a_corrupt_payload_fails_and_the_old_image_stays(tmp_path: Path) -> None:
    good = bundle()

    async def scene() -> None:
        async with one_node(tmp_path, **AWAKE) as (gateway, node):
            await install(gateway, node, good[:-1] + bytes([good[-1] ^ 1]))
            await until(lambda: last_report(gateway) == (NodeState.FAILED, Cause.BAD_DIGEST))
            assert node.status()["active"] == OLD_DIGEST

    play(scene())


def test_a_failing_self_test_reverts_the_node(tmp_path: Path) -> None:
    async def scene() -> None:
        async with one_node(tmp_path, behaviour="failing-self-test", **AWAKE) as (gateway, node):
            await install(gateway, node, bundle())
            await until(lambda: last_report(gateway) == (NodeState.REVERTED, Cause.SELF_TEST_FAILED))
            assert (node.status()["active"], node.status()["package_result"]) == (OLD_DIGEST, 8)

    play(scene())


def test_an_image_that_the_interpreter_cannot_run_ends_in_a_watchdog_reset(tmp_path: Path) -> None:
    async def scene() -> None:
        async with one_node(tmp_path, **AWAKE) as (gateway, node):
            await install(gateway, node, bundle(TARGET[:8] + bytes(600), self_test=bytes(8)))
            await until(lambda: last_report(gateway) == (NodeState.REVERTED, Cause.WATCHDOG))
            assert (node.status()["active"], node.status()["reboots"]) == (OLD_DIGEST, 1)

    play(scene())


def test_only_the_right_revert_command_sends_a_node_back(tmp_path: Path) -> None:
    async def scene() -> None:
        async with one_node(tmp_path, **AWAKE) as (gateway, node):
            await install(gateway, node, bundle())
            wrong = await gateway.ask("node-1", PUT, "/26241/0/3", revert_command(b"q" * 16))
            right = await gateway.ask("node-1", PUT, "/26241/0/3", revert_command(PREIMAGE))
            assert (wrong.code, right.code) == (FORBIDDEN, CHANGED)
            await until(lambda: last_report(gateway) == (NodeState.REVERTED, Cause.COMMANDED))
            assert (node.status()["active"], node.status()["standby"]) == (OLD_DIGEST, TARGET_DIGEST)

    play(scene())


def test_a_liar_reports_the_target_and_keeps_the_old_image(tmp_path: Path) -> None:
    async def scene() -> None:
        async with one_node(tmp_path, behaviour="liar", **AWAKE) as (gateway, node):
            await install(gateway, node, bundle())
            await until(lambda: last_report(gateway)[0] == NodeState.CONFIRMED)
            assert gateway.states()[-1][2:6] == bytes.fromhex(TARGET_DIGEST)[:4]
            assert await gateway.read("node-1", "/26241/0/0") == bytes.fromhex(OLD_DIGEST)
            assert node.status()["active"] == OLD_DIGEST

    play(scene())


def test_a_node_that_is_not_answered_undoes_the_trial(tmp_path: Path) -> None:
    async def scene() -> None:
        async with one_node(tmp_path, awake_s=5.0, wake_interval_s=20.0) as (gateway, node):
            await gateway.offer("node-1", bundle())
            await until(lambda: node.firmware.memory.package_state == 2 and not node.firmware.report_due)
            gateway.report_answer = FORBIDDEN
            assert await gateway.execute("node-1") == CHANGED
            await until(lambda: node.firmware.agent.state == "reverted")
            assert (node.firmware.agent.cause, node.status()["active"]) == ("no-server-contact", OLD_DIGEST)

    play(scene())


def test_executing_without_a_package_is_not_allowed(tmp_path: Path) -> None:
    async def scene() -> None:
        async with one_node(tmp_path, **AWAKE) as (gateway, _):
            assert await gateway.execute("node-1") == METHOD_NOT_ALLOWED

    play(scene())


def test_a_package_larger_than_its_image_is_given_up(tmp_path: Path) -> None:
    async def scene() -> None:
        async with one_node(tmp_path, **AWAKE) as (gateway, node):
            package = bundle() + bytes(4000)
            await install(gateway, node, package)
            await until(lambda: last_report(gateway) == (NodeState.FAILED, Cause.PATCH_INVALID))
            assert gateway.offsets[-1] < len(package) - 3000

    play(scene())


def test_an_endless_manifest_is_refused_after_its_first_block(tmp_path: Path) -> None:
    async def scene() -> None:
        async with one_node(tmp_path, **AWAKE) as (gateway, node):
            await install(gateway, node, b"\xff\xff" + bytes(4000))
            await until(lambda: last_report(gateway) == (NodeState.REJECTED, Cause.BAD_FORMAT))
            assert gateway.offsets == [0]
            assert node.status()["state"] == "rejected"

    play(scene())


def test_a_staged_image_stays_ready_when_it_is_offered_again(tmp_path: Path) -> None:
    async def scene() -> None:
        async with one_node(tmp_path, **AWAKE) as (gateway, node):
            await gateway.offer("node-1", bundle())
            await until(lambda: node.firmware.memory.package_state == 2)
            await install(gateway, node, bundle())
            assert (node.status()["state"], node.status()["active"]) == ("confirmed", TARGET_DIGEST)

    play(scene())


@pytest.mark.parametrize("uri", [b"http://127.0.0.1/b/x", b"coap://example.org/b/x", b"coap://[::1/b", b"\xff\xfe"])
def test_an_address_that_cannot_be_pulled_is_refused(tmp_path: Path, uri: bytes) -> None:
    async def scene() -> None:
        async with one_node(tmp_path, **AWAKE) as (gateway, _):
            assert (await gateway.ask("node-1", PUT, "/5/0/1", uri)).code == BAD_REQUEST
            assert (await gateway.read("node-1", "/5/0/3"), await gateway.read("node-1", "/5/0/5")) == (b"0", b"7")

    play(scene())


def test_a_package_that_is_gone_leaves_the_node_idle_and_the_update_open(tmp_path: Path) -> None:
    async def scene() -> None:
        async with one_node(tmp_path, **AWAKE) as (gateway, node):
            uri = f"coap://127.0.0.1:{gateway.address[1]}/b/nothing"
            await gateway.ask("node-1", PUT, "/5/0/1", uri.encode())
            await until(lambda: node.firmware.memory.package_state == 0)
            await install(gateway, node, bundle())
            assert node.status()["active"] == TARGET_DIGEST

    play(scene())
