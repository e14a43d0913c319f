from __future__ import annotations

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.links import link_for
from devices.links.nbiot.blocks import BadBlock, cut_block
from devices.links.nbiot.registry import BadRegistration, Registry, parse_registration
from devices.links.nbiot.senml import BadPack, Report, parse_reports
from devices.models import HardwareProfile, LinkKind

STATE = bytes([0x13, 0]) + bytes(9)
CONFIRMED = bytes([0x14, 0]) + bytes(9)
HEALTH = bytes([0x20, 1, 1]) + b"piece"


@given(body=st.binary(max_size=5000), sizes=st.lists(st.integers(0, 6), min_size=1), most=st.integers(0, 6))
def test_blocks_join_to_the_body_whatever_sizes_are_asked_for(body: bytes, sizes: list[int], most: int) -> None:
    joined, turn = b"", 0
    while True:
        size_exponent = sizes[turn % len(sizes)]
        while len(joined) % (1 << (size_exponent + 4)):
            size_exponent -= 1
        asked = len(joined) >> (size_exponent + 4)
        block = cut_block(body, number=asked, size_exponent=size_exponent, size_exponent_max=most)
        assert block.offset == len(joined) == block.number << (block.size_exponent + 4)
        assert len(block.payload) <= 1 << (most + 4)
        joined, turn = joined + block.payload, turn + 1
        if not block.more:
            break
    assert joined == body


@pytest.mark.parametrize(("number", "size_exponent"), [(4, 5), (0, 7), (1 << 20, 0)])
def test_a_block_that_is_not_there_is_refused(number: int, size_exponent: int) -> None:
    with pytest.raises(BadBlock):
        cut_block(bytes(2048), number=number, size_exponent=size_exponent, size_exponent_max=6)


def test_a_pack_is_read_with_its_base_names() -> None:
    pack = [{-2: "/26241/0/", 0: "2", 8: STATE}, {0: "5", 8: HEALTH}, {0: "4", 3: "build"}, {0: "2", 8: CONFIRMED}]
    assert parse_reports(cbor2.dumps(pack)) == [Report(STATE, False), Report(HEALTH, False), Report(CONFIRMED, True)]


@pytest.mark.parametrize(
    "pack",
    [
        {"not": "a list"},
        [1],
        [{0: 5, 8: STATE}],
        [{0: "/26241/0/2", 8: STATE[:10]}],
        [{0: "/26241/0/2", 3: "text"}],
        [{0: "/26241/0/5", 8: STATE}],
        [{0: "/26241/0/2", 8: STATE}, {0: "/26241/0/5", 8: b""}],
        [{0: "/26241/0/2", 8: STATE}] * 65,
    ],
)
def test_one_bad_record_refuses_the_whole_pack(pack: object) -> None:
    with pytest.raises(BadPack):
        parse_reports(cbor2.dumps(pack))


@given(st.binary(max_size=200))
def test_no_bytes_trip_the_pack_reader(data: bytes) -> None:
    try:
        parse_reports(data)
    except BadPack as error:
        assert str(error)


@pytest.mark.parametrize(
    ("query", "version", "queue_mode", "sends"),
    [
        (["ep=a", "b=UQ"], (1, 0), True, False),
        (["ep=a", "lwm2m=1.1", "Q"], (1, 1), True, True),
        (["ep=a", "lwm2m=1.2", "b=U"], (1, 2), False, True),
    ],
)
def test_both_spellings_of_queue_mode_are_understood(
    query: list[str], version: tuple[int, int], queue_mode: bool, sends: bool
) -> None:
    registration = parse_registration(query, b"</5/0>,</26241/0>")
    assert (registration.version, registration.queue_mode, registration.sends) == (version, queue_mode, sends)
    assert registration.has_agent


@pytest.mark.parametrize("query", [[], ["ep="], ["ep=a\n"], ["ep=a", "lt=0"], ["ep=a", "lt=x"], ["ep=a", "lwm2m=2.0"]])
def test_a_bad_registration_names_its_parameter(query: list[str]) -> None:
    with pytest.raises(BadRegistration, match=r"^(ep|lt|lwm2m):"):
        parse_registration(query, b"")


def test_a_session_follows_its_node_to_a_new_address_and_ends_with_its_lifetime() -> None:
    registry = Registry(awake_s=10, time_scale=2)
    registration = parse_registration(["ep=a", "lt=100", "Q"], b"")
    session = registry.register(node_id=1, registration=registration, remote="old", holds="", now=0.0)
    assert registry.awake(now=9) == [session]
    assert registry.awake(now=10) == []
    registry.update(session, remote="new", query=(), now=40.0)
    assert (registry.at("old"), registry.at("new")) == (None, session)
    assert registry.expire(now=99.9) == 0
    assert registry.expire(now=100.0) == 1
    assert registry.by_location == registry.by_node == {}


def test_a_second_registration_of_a_node_ends_the_first() -> None:
    registry = Registry(awake_s=10, time_scale=1)
    registration = parse_registration(["ep=a"], b"")
    first = registry.register(node_id=1, registration=registration, remote="x", holds="", now=0.0)
    second = registry.register(node_id=1, registration=registration, remote="y", holds="", now=1.0)
    assert first.location not in registry.by_location
    assert registry.by_node[1] is second
    assert registry.at("x") is None


def test_an_estimate_agrees_with_the_measured_bytes_of_20_kilobytes_in_blocks_of_512() -> None:
    link = link_for(LinkKind.NBIOT)
    per_kibibyte = HardwareProfile(radio_joules_per_kibibyte=1.0)
    empty, whole = (link.estimate(profile=per_kibibyte, size=size) for size in (0, 20480))
    assert whole.energy_j is not None
    assert empty.energy_j is not None
    assert (whole.energy_j - empty.energy_j) * 1024 == pytest.approx(26_400, rel=0.01)
    assert whole.frames - empty.frames == 80
    assert (whole.hours - empty.hours) * 3600 == pytest.approx(40)
    assert link.estimate(profile=HardwareProfile(), size=1).energy_j is None


def test_an_unknown_link_kind_is_an_error() -> None:
    with pytest.raises(ValueError, match="no implementation"):
        link_for("smoke-signals")
