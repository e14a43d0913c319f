from __future__ import annotations

import asyncio
import json
import signal
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.integration.devices.coap_gateway import CoapGateway, until
from tests.integration.devices.simulated import OLD, OLD_DIGEST, SIGNER, bundle, node_spec, play


def write_spec(directory: Path) -> Path:
    (directory / "old.tflite").write_bytes(OLD)
    path = directory / "spec.json"
    document = {
        "public_keys": [SIGNER.public_key.hex()],
        "images": {OLD_DIGEST: "old.tflite"},
        "nodes": [asdict(node_spec())],
    }
    path.write_text(json.dumps(document))
    return path


async def start(spec: Path, gateway: CoapGateway, state: Path, scale: float = 20.0) -> asyncio.subprocess.Process:
    host, port = gateway.address
    arguments = ["--spec", spec, "--gateway", f"{host}:{port}", "--time-scale", scale, "--seed", 3, "--state", state]
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "devices.simulator", *map(str, arguments), stderr=asyncio.subprocess.PIPE
    )


def test_the_program_reports_its_slots_and_ends_on_sigterm(tmp_path: Path) -> None:
    async def scene() -> None:
        async with CoapGateway() as gateway:
            process = await start(write_spec(tmp_path), gateway, tmp_path / "state")
            await until(gateway.states)
            process.send_signal(signal.SIGTERM)
            assert await asyncio.wait_for(process.wait(), 10) == 0
            status: dict[str, Any] = json.loads((tmp_path / "state" / "status.json").read_text())
            node = status["nodes"]["node-1"]
            assert (node["active"], node["standby"], node["state"]) == (OLD_DIGEST, "", "idle")
            assert node["bytes_up"] > 0
            assert status["totals"]["nodes"] == 1

    play(scene())


def test_a_sigkill_in_mid_download_loses_no_block_and_no_slot(tmp_path: Path) -> None:
    async def scene() -> None:
        spec = write_spec(tmp_path)
        async with CoapGateway() as gateway:
            process = await start(spec, gateway, tmp_path / "state", scale=2.0)
            await until(gateway.states, 30)
            await gateway.offer("node-1", bundle())
            await until(lambda: len(gateway.offsets) >= 4)
            process.kill()
            await process.wait()
            before = len(gateway.offsets)
            process = await start(spec, gateway, tmp_path / "state")
            await until(lambda: len(gateway.offsets) > before)
            assert gateway.offsets[before] >= 256 * (before - 1)
            process.terminate()
            await process.wait()
            status = json.loads((tmp_path / "state" / "status.json").read_text())
            assert status["nodes"]["node-1"]["active"] == OLD_DIGEST

    play(scene())


def test_a_wrong_specification_is_named_and_ends_with_two(tmp_path: Path) -> None:
    async def scene() -> None:
        spec = write_spec(tmp_path)
        spec.write_text(spec.read_text().replace('"normal"', '"lazy"'))
        async with CoapGateway() as gateway:
            process = await start(spec, gateway, tmp_path / "state")
            _, errors = await process.communicate()
            assert process.returncode == 2
            assert b"behaviour 'lazy'" in errors

    play(scene())
