from __future__ import annotations

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from docs.vectors.generate import manifest_vectors, render
from tests.unit.devices.agent_bench import (
    BASE,
    CLASS_HASH,
    PUBLIC_KEYS,
    SIGNER,
    VECTORS,
    manifest,
    new_node,
    vector_node,
)
from updates.patches.manifest import read_envelope, signed_message
from updates.patches.signing import TrustedKeys
from updates.patches.verdict import NodeFacts, node_verdict

KEYS = TrustedKeys(PUBLIC_KEYS)
FACTS = NodeFacts(CLASS_HASH, hashlib.sha256(BASE).digest(), 7, 4096, frozenset(VECTORS["node"]["codecs"]))
GOOD = [bytes.fromhex(case["manifest"]) for case in VECTORS["cases"][:3]]


@pytest.mark.parametrize("case", VECTORS["cases"], ids=lambda case: case["name"])
def test_node_and_server_give_the_published_verdict(case: dict[str, str]) -> None:
    agent, signed = vector_node(), bytes.fromhex(case["manifest"])
    before = agent.image(agent.running_slot)
    assert agent.begin(signed) == case["verdict"]
    assert node_verdict(signed, KEYS, FACTS) == case["verdict"]
    assert agent.image(agent.running_slot) == before


def test_the_vectors_are_those_that_the_generator_writes() -> None:
    assert render(manifest_vectors()) == render(VECTORS)


def test_the_vectors_show_the_signed_bytes_of_their_first_case() -> None:
    envelope = read_envelope(GOOD[0])
    assert envelope.payload.hex() == VECTORS["payload"]
    assert signed_message(envelope.payload).hex() == VECTORS["signed_message"]
    assert envelope.key_id.hex() == VECTORS["keys"][0]["key_id"]


def test_a_bit_flip_in_any_byte_of_the_manifest_is_refused_and_nothing_is_written() -> None:
    agent = new_node()
    before = [bytes(slot) for slot in agent.flash.slots]
    signed = manifest(1)
    for at in range(len(signed)):
        for bit in range(8):
            flipped = signed[:at] + bytes([signed[at] ^ 1 << bit]) + signed[at + 1 :]
            assert agent.begin(flipped) in {"bad-format", "bad-signature", "unknown-key"}
    assert [bytes(slot) for slot in agent.flash.slots] == before
    assert agent.state == "idle"


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(GOOD), st.data())
def test_node_and_server_agree_on_mutated_manifests(signed: bytes, data: st.DataObject) -> None:
    mutated = bytearray(signed)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(mutated) - 1))
        mutated[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=3))
    assert vector_node().begin(bytes(mutated)) == node_verdict(bytes(mutated), KEYS, FACTS)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_node_and_server_agree_on_signed_payloads_that_are_malformed(data: st.DataObject) -> None:
    import cbor2

    payload = bytearray(read_envelope(data.draw(st.sampled_from(GOOD))).payload)
    at = data.draw(st.integers(0, len(payload) - 1))
    payload[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=3))
    signature = SIGNER.sign(signed_message(bytes(payload)))
    head = bytes.fromhex("8443a10127a10444") + SIGNER.key_id
    signed = head + cbor2.dumps(bytes(payload)) + cbor2.dumps(signature)
    assert vector_node().begin(signed) == node_verdict(signed, KEYS, FACTS)
