"""Simulated nodes decode weight patches with the shipped C code, by what their firmware is built with."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from devices.agent.native import Agent, Flash
from devices.agent.patch_codec import Profile
from devices.simulator.package import CODECS
from devices.simulator.spec import FirmwareSpec, SpecInvalid, check_nodes
from tests.unit.devices.agent_bench import CLASS_HASH, SELF_TEST, SIGNER
from tests.unit.updates.weight_images import fine_tuned, image
from updates.patches.codec import Codec, apply_patch, build_patch
from updates.patches.manifest import Manifest, sign_manifest
from updates.patches.weight_patch import encode_patch

BASE, LAYOUT = image(1)
TARGET = fine_tuned(BASE, LAYOUT, 2)
PATCH = {
    2: encode_patch(BASE, TARGET, profile=Profile.S, layouts=(LAYOUT, LAYOUT)).data,
    3: encode_patch(BASE, TARGET, profile=Profile.L, layouts=(LAYOUT, LAYOUT)).data,
}


def offered(decoder: str, codec: int) -> tuple[str, Agent]:
    flash = Flash(8192)
    flash.slots[0][: len(BASE)] = BASE
    agent = Agent(
        flash,
        class_hash=CLASS_HASH,
        public_keys=[SIGNER.public_key],
        codecs=CODECS[decoder],
        factory_size=len(BASE),
    )
    digest, prefix = hashlib.sha256(TARGET).digest(), hashlib.sha256(BASE).digest()[:8]
    unsigned = Manifest(b"mod1", prefix, digest, len(TARGET), 1, CLASS_HASH, codec, SELF_TEST, bytes(16))
    return agent.begin(sign_manifest(unsigned, SIGNER)), agent


@pytest.mark.parametrize("piece_bytes", [1, 11, 512, 1 << 20])
@pytest.mark.parametrize(("decoder", "codec"), [("s", 2), ("l", 2), ("l", 3)])
def test_a_node_stages_the_image_that_its_decoder_makes(decoder: str, codec: int, piece_bytes: int) -> None:
    cause, agent = offered(decoder, codec)
    assert cause == "none"
    assert agent.stage_patch(PATCH[codec], piece_bytes) == "none"
    assert agent.stage_finish() == "none"
    assert agent.image(1) == TARGET
    assert agent.image(0) == BASE


@pytest.mark.parametrize(("decoder", "codec"), [("none", 2), ("none", 3), ("s", 3)])
def test_a_node_refuses_what_its_firmware_was_not_built_for(decoder: str, codec: int) -> None:
    assert offered(decoder, codec)[0] == "unknown-codec"


@pytest.mark.parametrize("codec", [2, 3])
def test_a_damaged_patch_never_becomes_an_image(codec: int) -> None:
    for damaged in (PATCH[codec][:-40], PATCH[codec][:30] + b"?" + PATCH[codec][31:], b"", PATCH[codec][:5]):
        cause, agent = offered("l", codec)
        assert cause == "none"
        outcome = agent.stage_patch(damaged)
        if outcome == "none":
            outcome = agent.stage_finish()
        assert outcome in ("patch-invalid", "bad-digest")
        assert agent.state == "failed"
        assert agent.image(1) == b""


def test_codec_2_takes_no_patch_of_profile_l() -> None:
    _, agent = offered("l", 2)
    assert agent.stage_patch(PATCH[3]) == "patch-invalid"


def test_flash_that_fails_while_a_patch_is_decoded_fails_the_update() -> None:
    _, agent = offered("l", 3)
    agent.flash.fuse = 20
    assert agent.stage_patch(PATCH[3]) == "flash-failure"


def test_the_server_sends_the_smallest_that_the_node_decodes() -> None:
    sizes = {}
    for decoder, codecs in CODECS.items():
        patch = build_patch(BASE, TARGET, decodable=codecs)
        assert patch.codec in codecs
        assert apply_patch(patch.codec, BASE, patch.payload, len(TARGET)) == TARGET
        sizes[decoder] = len(patch.payload)
    assert sizes["l"] <= sizes["s"] < sizes["none"]
    assert build_patch(BASE, TARGET).codec in (Codec.FULL_IMAGE, Codec.BSDIFF4)


def test_a_specification_names_one_of_the_decoders() -> None:
    node = FirmwareSpec("n", "00000000", 64, "", patch_decoder="xl")
    with pytest.raises(SpecInvalid, match="patch_decoder 'xl', must be one of none, s, l"):
        check_nodes(Path("spec.json"), [node], {"": b""})
