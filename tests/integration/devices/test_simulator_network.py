from __future__ import annotations

import asyncio
import contextlib
import resource
import time
from pathlib import Path

import pytest
from aiocoap import FORBIDDEN
from aiocoap.error import Error

from devices.simulator.node import Node
from devices.wire import decode_state, join_health
from tests.integration.devices.coap_gateway import CoapGateway, until
from tests.integration.devices.simulated import (
    OLD,
    OLD_DIGEST,
    TARGET_DIGEST,
    bundle,
    make_fleet,
    node_spec,
    one_node,
    play,
    running,
)


async def confirm_through(gateway: CoapGateway, node: Node, package: bytes) -> None:
    """Offer and execute whenever the node is awake and until it has confirmed, as a patient gateway does."""
    firmware, path = node.firmware, node.path
    while firmware.agent.state != "confirmed":
        await until(lambda: path.awake and gateway.remotes)
        with contextlib.suppress(Error, TimeoutError, AssertionError):  # lost on the way: asked again in the loop
            if firmware.memory.package_state == 0 and firmware.agent.state == "idle":
                await gateway.offer("node-1", package)
            elif firmware.memory.package_state == 2:
                await gateway.execute("node-1")
        await asyncio.sleep(0.02)


def test_a_node_confirms_through_twenty_percent_loss(tmp_path: Path) -> None:
    async def scene() -> None:
        async with CoapGateway() as gateway:
            spec = node_spec(loss=0.2, wake_interval_s=40.0, ack_timeout_s=1.0)
            async with running(make_fleet(gateway, tmp_path, spec)) as fleet:
                node = fleet.nodes["node-1"]
                await confirm_through(gateway, node, bundle())
                assert node.status()["active"] == TARGET_DIGEST
                assert node.path.traffic.lost > 0

    play(scene())


def test_a_reboot_in_mid_download_resumes_at_the_byte_it_had_reached(tmp_path: Path) -> None:
    async def scene() -> None:
        async with one_node(tmp_path, behaviour="reboot") as (gateway, node):
            package = bundle()
            await confirm_through(gateway, node, package)
            assert node.status()["reboots"] == 1
            assert gateway.registrations == ["node-1", "node-1"]
            assert gateway.offsets == list(range(0, len(package), 256))
            assert node.status()["active"] == TARGET_DIGEST

    play(scene())


def test_a_node_follows_a_server_that_sends_smaller_blocks(tmp_path: Path) -> None:
    async def scene() -> None:
        async with one_node(tmp_path) as (gateway, node):
            gateway.largest_block_exponent = 2
            await confirm_through(gateway, node, bundle())
            assert gateway.offsets[:3] == [0, 64, 128]

    play(scene())


def test_other_bytes_under_the_same_address_are_pulled_from_the_start(tmp_path: Path) -> None:
    async def scene() -> None:
        async with one_node(tmp_path, latency_s=1.0) as (gateway, node):
            await gateway.offer("node-1", bundle(OLD, sequence=6))
            await until(lambda: len(gateway.offsets) > 3)
            gateway.packages["package-0"] = bundle(sequence=7)
            await confirm_through(gateway, node, bundle())
            assert gateway.offsets.count(0) == 2
            assert node.status()["active"] == TARGET_DIGEST

    play(scene())


def test_a_server_in_trouble_costs_a_wake_and_not_the_blocks(tmp_path: Path) -> None:
    async def scene() -> None:
        async with one_node(tmp_path, latency_s=0.5) as (gateway, node):
            package = bundle()
            await gateway.offer("node-1", package)
            await until(lambda: len(gateway.offsets) > 3)
            gateway.trouble = 1
            await confirm_through(gateway, node, package)
            assert len(gateway.offsets) == len(range(0, len(package), 256)) + 1

    play(scene())


def test_a_report_from_a_new_port_is_preceded_by_a_registration_update(tmp_path: Path) -> None:
    async def scene() -> None:
        async with one_node(tmp_path, wake_interval_s=20.0, awake_s=900.0) as (gateway, node):
            gateway.updates.clear()
            node.path.close()  # the operator's NAT forgets the mapping
            node.firmware.report_due = True
            node._heard.set()
            await until(lambda: len(gateway.reports) == 2)
            assert gateway.updates == ["node-1"]

    play(scene())


def test_a_killed_simulator_goes_on_from_its_files(tmp_path: Path) -> None:
    async def scene() -> None:
        package = bundle()
        async with CoapGateway() as gateway:
            spec = node_spec(latency_s=1.0)
            async with running(make_fleet(gateway, tmp_path, spec)) as fleet:
                await until(gateway.states)
                await gateway.offer("node-1", package)
                await until(lambda: len(gateway.offsets) > 5)
            pulled = len(fleet.nodes["node-1"].firmware.download.data)
            before = len(gateway.offsets)
            async with running(make_fleet(gateway, tmp_path, spec)) as fleet:
                await until(lambda: len(gateway.offsets) > before)
                assert gateway.offsets[before] == pulled > 0
                node = fleet.nodes["node-1"]
                await confirm_through(gateway, node, package)
            fleet = make_fleet(gateway, tmp_path, spec)
            assert fleet.nodes["node-1"].status()["active"] == TARGET_DIGEST
            assert fleet.nodes["node-1"].status()["standby"] == OLD_DIGEST

    play(scene())


def test_a_sleeping_node_does_not_hear_and_keeps_its_registration(tmp_path: Path) -> None:
    async def scene() -> None:
        async with one_node(tmp_path, wake_interval_s=60.0, awake_s=4.0) as (gateway, node):
            await until(lambda: not node.path.awake)
            with pytest.raises((Error, TimeoutError)):
                await gateway.ask("node-1", 1, "/26241/0/0", tries=2)
            assert node.path.traffic.black_holed >= 2
            await until(lambda: gateway.updates)
            assert await gateway.read("node-1", "/26241/0/0") == bytes.fromhex(OLD_DIGEST)
            assert gateway.registrations == ["node-1"]

    play(scene())


def test_a_long_silence_gives_a_node_another_port(tmp_path: Path) -> None:
    async def scene() -> None:
        async with one_node(tmp_path, nat_idle_s=5.0, awake_s=2.0, wake_interval_s=20.0) as (gateway, node):
            first = gateway.remotes["node-1"].hostinfo
            await until(lambda: gateway.updates)
            assert gateway.remotes["node-1"].hostinfo != first
            assert node.path.traffic.rebindings >= 1

    play(scene())


def test_a_silent_node_leaves_after_the_offer_and_does_not_come_back(tmp_path: Path) -> None:
    async def scene() -> None:
        async with CoapGateway() as gateway:
            spec = node_spec(behaviour="silent", wake_interval_s=10.0, awake_s=6.0)
            async with running(make_fleet(gateway, tmp_path, spec)) as fleet:
                await until(gateway.states)
                await gateway.offer("node-1", bundle())
                await until(lambda: not fleet.nodes["node-1"].path.awake)
                heard = len(gateway.updates)
                await asyncio.sleep(1.5)  # three of its wake intervals
                assert (len(gateway.updates), gateway.offsets) == (heard, [])

    play(scene())


def test_an_unknown_endpoint_asks_again_at_each_wake(tmp_path: Path) -> None:
    async def scene() -> None:
        async with CoapGateway() as gateway:
            gateway.refused.add("node-1")
            async with running(make_fleet(gateway, tmp_path, node_spec(wake_interval_s=5.0))) as fleet:
                node = fleet.nodes["node-1"]
                await until(lambda: node.status()["wakes"] >= 2)
                assert f"{FORBIDDEN.dotted}" in node.problem
                gateway.refused.clear()
                await until(gateway.states)

    play(scene())


def test_a_health_report_decodes_on_the_server_side(tmp_path: Path) -> None:
    async def scene() -> None:
        async with one_node(tmp_path, health_every_wakes=2, wake_interval_s=40.0) as (gateway, _):
            parts: list[bytes] = []

            def whole() -> bool:
                parts[:] = [value for _, name, value in gateway.reports if name == "/26241/0/5"]
                return bool(parts) and len(parts) == parts[0][2]

            await until(whole)
            report = join_health(parts)
            assert report.active_prefix == bytes.fromhex(OLD_DIGEST)[:4]
            assert 18 <= report.inferences <= 45  # one in two seconds, over the first wake and one interval
            assert len(report.class_counts) == 32
            assert 500 < report.arena_used_bytes < 4096  # as its own interpreter says of a network of two layers

    play(scene())


def test_a_client_without_send_is_read_and_confirms_by_its_registration_update(tmp_path: Path) -> None:
    async def scene() -> None:
        async with CoapGateway() as gateway, running(make_fleet(gateway, tmp_path, node_spec(lwm2m="1.0"))) as fleet:
            await until(lambda: gateway.registrations)
            node = fleet.nodes["node-1"]
            await confirm_through(gateway, node, bundle())
            assert gateway.reports == []
            assert node.status()["active"] == TARGET_DIGEST

    play(scene())


def test_a_node_that_never_comes_sends_nothing(tmp_path: Path) -> None:
    async def scene() -> None:
        async with CoapGateway() as gateway:
            nodes = node_spec("absent", behaviour="never", wake_interval_s=1.0), node_spec(wake_interval_s=1.0)
            async with running(make_fleet(gateway, tmp_path, *nodes)) as fleet:
                await until(gateway.states)
                assert fleet.status()["nodes"]["absent"]["messages_up"] == 0

    play(scene())


def test_chance_is_the_same_for_the_same_seed(tmp_path: Path) -> None:
    async def scene() -> None:
        async with CoapGateway() as gateway:
            draws = []
            for directory, seed in (("a", 1), ("b", 1), ("c", 2)):
                fleet = make_fleet(gateway, tmp_path / directory, node_spec(loss=0.5), seed=seed)
                node = fleet.nodes["node-1"]
                draws.append([node.path._lost() for _ in range(40)])
            assert draws[0] == draws[1] != draws[2]

    play(scene())


def test_three_hundred_nodes_register_in_seconds(tmp_path: Path) -> None:
    async def scene() -> None:
        async with CoapGateway() as gateway:
            fields = {"wake_interval_s": 120.0, "awake_s": 30.0, "ack_timeout_s": 15.0}
            nodes = [node_spec(f"node-{number}", **fields) for number in range(300)]
            started, cpu = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_utime
            async with running(make_fleet(gateway, tmp_path, *nodes, time_scale=60.0)) as fleet:
                await until(lambda: fleet.status()["totals"]["registered"] == 300)
                assert time.monotonic() - started < 10
                assert resource.getrusage(resource.RUSAGE_SELF).ru_utime - cpu < 5  # the gateway's share is in it
            assert sorted(set(gateway.registrations)) == sorted(node.endpoint for node in nodes)
            reported = {decode_state(value).active_prefix for _, _, value in gateway.reports}
            assert reported == {bytes.fromhex(OLD_DIGEST)[:4]}

    play(scene())
