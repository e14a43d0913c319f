"""Weight patches decode to the target, however the bytes come in and wherever the power goes."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devices.agent.patch_codec import Decoder, Op, OpKind, PatchRefused, Profile, decode, encode, read_header
from tests.unit.updates.weight_images import fine_tuned, image
from updates.patches.weight_patch import encode_patch

VECTORS: dict[str, Any] = json.loads((Path(__file__).parents[3] / "docs/vectors/patches.json").read_text())
BASE, LAYOUT = image(1)
TARGET = fine_tuned(BASE, LAYOUT, 2)
PATCHES = {profile: encode_patch(BASE, TARGET, profile=profile, layouts=(LAYOUT, LAYOUT)).data for profile in Profile}
bytes_of_any_sort = st.one_of(
    st.binary(min_size=1, max_size=500),
    st.builds(lambda unit, times: (unit * times)[:600], st.binary(min_size=1, max_size=9), st.integers(1, 200)),
)


@pytest.mark.parametrize("profile", Profile)
def test_a_fine_tuned_image_comes_back_from_a_patch_far_smaller_than_itself(profile: Profile) -> None:
    assert decode(BASE, PATCHES[profile], profile=profile) == TARGET
    assert len(PATCHES[profile]) < 0.35 * len(TARGET)


@settings(max_examples=150, deadline=None)
@given(bytes_of_any_sort, bytes_of_any_sort, st.sampled_from(Profile))
def test_any_two_images_decode_back(base: bytes, target: bytes, profile: Profile) -> None:
    patch = encode_patch(base, target, profile=profile)
    assert decode(base, patch.data, profile=profile) == target


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 1000), st.floats(0.0, 30.0), st.sampled_from(Profile))
def test_weights_changed_a_little_or_wholly_decode_back(seed: int, strength: float, profile: Profile) -> None:
    base, layout = image(seed)
    target = fine_tuned(base, layout, seed + 1, strength)
    patch = encode_patch(base, target, profile=profile, layouts=(layout, layout))
    assert decode(base, patch.data, profile=profile) == target


def test_a_layer_that_grew_and_moved_is_still_predicted_from_the_old_one() -> None:
    head = LAYOUT[8]
    grown = BASE[: head.offset] + bytes(64) + TARGET[head.offset :]
    moved = [tensor for tensor in LAYOUT if tensor.offset < head.offset]
    moved += [
        type(tensor)(tensor.offset + 64, tensor.size, tensor.kind, tensor.rows, tensor.columns)
        for tensor in LAYOUT
        if tensor.offset >= head.offset
    ]
    patch = encode_patch(BASE, grown, profile=Profile.L, layouts=(LAYOUT, tuple(moved)))
    assert decode(BASE, patch.data) == grown
    assert len(patch.data) < 700
    assert {op.kind for op in patch.ops} & {OpKind.ROWS, OpKind.LINEAR}


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(Profile), st.lists(st.integers(0, 40), min_size=1, max_size=30))
def test_input_in_pieces_of_any_size_gives_the_same_image(profile: Profile, sizes: list[int]) -> None:
    patch, decoder = PATCHES[profile], Decoder(BASE, profile=profile)
    out, at, turn = bytearray(), 0, 0
    while not decoder.finished:
        size = sizes[turn % len(sizes)] if any(sizes) else 1
        piece = patch[at : at + size]
        used, ready = decoder.feed(piece, last=at + size >= len(patch))
        at, turn, out = at + used, turn + 1, out + ready
    assert bytes(out) == TARGET


@pytest.mark.parametrize("profile", Profile)
def test_power_cut_at_every_unit_of_output_resumes_to_the_same_image(profile: Profile) -> None:
    patch, decoder = PATCHES[profile], Decoder(BASE, profile=profile)
    out, at, cuts = bytearray(), 0, 0
    while not decoder.finished:
        used, ready = decoder.feed(patch[at : at + 11], last=at + 11 >= len(patch))
        at, out = at + used, out + ready
        if ready and not decoder.finished:  # saved, power gone, and everything but flash forgotten
            state, cuts = decoder.save(), cuts + 1
            decoder = Decoder(BASE, profile=profile, state=state, written=bytes(out))
    assert bytes(out) == TARGET
    assert cuts == (len(TARGET) - 1) // 32


@pytest.mark.parametrize("channels", [1, 511, 512, 513, 1500])
def test_layers_with_more_channels_than_the_decoder_remembers_decode_back(channels: int) -> None:
    random = np.random.default_rng(channels)
    scales, biases = (
        random.uniform(0.001, 0.01, channels).astype("<f4"),
        random.integers(-9999, 9999, channels).astype("<i4"),
    )
    moved = (scales * random.uniform(0.8, 1.2, channels)).astype("<f4")
    base = scales.tobytes() + biases.tobytes()
    target = moved.tobytes() + np.rint(biases * (scales / moved)).astype("<i4").tobytes()
    ops = [Op(OpKind.FLOATS, channels), Op(OpKind.INTEGERS_SCALED, channels, offset=4 * channels)]
    patch, bits = encode(Profile.L, base, target, ops)
    assert decode(base, patch) == target
    assert channels > 1000 or bits[1] < 6 * channels + 40  # the ratio of scales tells most of the bias


def test_a_state_that_was_torn_is_refused() -> None:
    decoder = Decoder(BASE)
    decoder.feed(PATCHES[Profile.L][:200], last=False)
    state = bytearray(decoder.save())
    state[len(state) // 2] ^= 1
    with pytest.raises(PatchRefused, match="not saved whole"):
        Decoder(BASE, state=bytes(state))


@settings(max_examples=2000, deadline=None)
@given(st.sampled_from(Profile), st.data())
def test_a_mutated_patch_is_refused_or_gives_the_target(profile: Profile, data: st.DataObject) -> None:
    patch = bytearray(PATCHES[profile])
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(patch) - 1))
        match data.draw(st.integers(0, 3)):
            case 0:
                patch[at] ^= 1 << data.draw(st.integers(0, 7))
            case 1:
                patch[at] = data.draw(st.integers(0, 255))
            case 2:
                del patch[at : at + data.draw(st.integers(1, 20))]
            case _:
                patch[at:at] = data.draw(st.binary(min_size=1, max_size=20))
        if not patch:
            break
    with contextlib.suppress(PatchRefused):
        assert decode(BASE, bytes(patch), profile=Profile.L, target_size_limit=1 << 16) == TARGET


@settings(max_examples=300, deadline=None)
@given(st.integers(0, len(BASE) - 1), st.integers(1, 255))
def test_another_base_is_refused(at: int, change: int) -> None:
    other = bytearray(BASE)
    other[at] ^= change
    with pytest.raises(PatchRefused):
        decode(bytes(other), PATCHES[Profile.L])


def test_a_decoder_of_profile_s_refuses_a_patch_of_profile_l() -> None:
    with pytest.raises(PatchRefused, match="profile L"):
        decode(BASE, PATCHES[Profile.L], profile=Profile.S)


def test_bytes_after_the_end_are_refused() -> None:
    # Eight: up to four that the encoder saved may be written out.
    with pytest.raises(PatchRefused, match="damaged"):
        decode(BASE, PATCHES[Profile.S] + bytes(8))


def test_the_header_tells_base_and_target() -> None:
    header = read_header(PATCHES[Profile.S])
    assert (header.profile, header.base_size, header.target_size) == (Profile.S, len(BASE), len(TARGET))


def test_an_unchanged_image_costs_a_few_bytes() -> None:
    assert len(encode_patch(BASE, BASE, profile=Profile.S).data) <= 14


@pytest.mark.parametrize("vector", VECTORS["good"], ids=lambda vector: vector["name"])
def test_the_published_patches_decode_to_the_published_targets(vector: dict[str, Any]) -> None:
    base, patch = bytes.fromhex(vector["base"]), bytes.fromhex(vector["patch"])
    ops = [Op(**{**op, "kind": OpKind[op["kind"].upper()]}) for op in vector["ops"]]
    assert decode(base, patch, profile=Profile[vector["profile"]]).hex() == vector["target"]
    assert encode(Profile[vector["profile"]], base, bytes.fromhex(vector["target"]), ops)[0] == patch


@pytest.mark.parametrize("vector", VECTORS["bad"], ids=lambda vector: vector["name"])
def test_the_published_bad_patches_are_refused(vector: dict[str, Any]) -> None:
    with pytest.raises(PatchRefused):
        decode(bytes.fromhex(vector["base"]), bytes.fromhex(vector["patch"]))


def test_the_published_patches_hold_every_kind_of_op() -> None:
    assert {op["kind"] for vector in VECTORS["good"] for op in vector["ops"]} == {kind.name.lower() for kind in OpKind}
