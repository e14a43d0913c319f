"""TS004 against published vectors, and parity against a decoder that solves the equations anew."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devices.links.lorawan.fragmentation import (
    NUMBER_MAX,
    Block,
    DeleteAnswer,
    Dialect,
    FragmentationError,
    PackageVersion,
    SetupAnswer,
    StatusAnswer,
    data_fragment,
    is_setup,
    is_status,
    number_of,
    parity_positions,
    read_answers,
    setup_request,
    status_request,
)

PUBLISHED = Block(bytes(range(100)), 10, Dialect.V1)


def test_setup_request_is_the_published_one() -> None:
    frame = setup_request(
        fragments=1024,
        fragment_bytes=128,
        padding=64,
        descriptor=bytes([1, 2, 3, 4]),
        index=3,
        group_mask=1,
        control=0x0D,
    )
    assert frame.hex() == "02310004800d4001020304"
    assert is_setup(frame)


def test_status_request_is_the_published_one() -> None:
    assert status_request(index=2).hex() == "0105"
    assert is_status(status_request())


def test_data_fragment_is_the_published_one() -> None:
    frame = data_fragment(1024, bytes([1, 2, 3, 4]), index=2)
    assert frame.hex() == "08008401020304"
    assert number_of(frame) == 1024
    assert number_of(status_request()) is None


@pytest.mark.parametrize(
    ("data", "answer"),
    [
        ("028b", SetupAnswer(2, True, True, False, True)),
        ("0100c48001", StatusAnswer(3, 1024, 128, True)),
        ("0307", DeleteAnswer(3, True)),
        ("0303", DeleteAnswer(3, False)),
        ("000301", PackageVersion(3, 1)),
    ],
)
def test_answers_are_read_as_published(data: str, answer: object) -> None:
    assert read_answers(bytes.fromhex(data)) == [answer]


def test_several_answers_in_one_uplink_are_all_read() -> None:
    answers = read_answers(bytes.fromhex("0200" + "0105000200"))
    assert answers == [SetupAnswer(0, False, False, False, False), StatusAnswer(0, 5, 2, False)]


@pytest.mark.parametrize("data", ["01", "0105", "ff", "020002"])
def test_broken_answers_are_refused(data: str) -> None:
    with pytest.raises(FragmentationError):
        read_answers(bytes.fromhex(data))


@pytest.mark.parametrize(
    ("dialect", "first"), [(Dialect.V1, "262622222e2e22222626"), (Dialect.V2, "686952535c5d76777071")]
)
def test_parity_is_the_published_one(dialect: Dialect, first: str) -> None:
    block = Block(bytes(range(100)), 10, dialect)
    assert block.payload(11).hex() == first


def test_the_second_parity_is_the_same_in_both_dialects() -> None:
    for dialect in Dialect:
        assert Block(bytes(range(100)), 10, dialect).payload(12).hex() == "5455565758596a6b7c7d"


def test_the_block_is_zero_padded_and_its_padding_said() -> None:
    block = Block(b"abcdefghijk", 4, Dialect.V1)
    assert (block.fragments, block.padding) == (3, 1)
    assert [block.payload(number) for number in (1, 2, 3)] == [b"abcd", b"efgh", b"ijk\0"]


def test_a_block_of_too_many_fragments_is_refused() -> None:
    with pytest.raises(FragmentationError, match="fragments"):
        Block(bytes(NUMBER_MAX + 1), 1, Dialect.V1)


@settings(max_examples=60, deadline=None)
@given(
    data=st.binary(min_size=1, max_size=1500),
    size=st.integers(1, 60),
    dialect=st.sampled_from(Dialect),
    seed=st.integers(0, 2**32),
    loss=st.floats(0, 0.5),
)
def test_any_fragments_that_determine_the_block_give_it_back(
    data: bytes, size: int, dialect: Dialect, seed: int, loss: float
) -> None:
    block = Block(data, size, dialect)
    chance = random.Random(seed)
    equations: dict[int, tuple[int, int]] = {}
    number = 0
    while len(equations) < block.fragments and number < 20 * block.fragments + 300:
        number += 1
        if chance.random() < loss:
            continue
        if number <= block.fragments:
            mask = 1 << (number - 1)
        else:
            mask = sum(1 << at for at in parity_positions(number - block.fragments, block.fragments, dialect))
        _add(equations, mask, int.from_bytes(block.payload(number), "big"))
    if len(equations) < block.fragments:
        assert block.fragments <= 3 or loss > 0.3  # parity of very few fragments says little
        return
    assert b"".join(row.to_bytes(size, "big") for row in _solve(equations, block.fragments))[: len(data)] == data


def _add(equations: dict[int, tuple[int, int]], mask: int, value: int) -> None:
    while mask:
        top = mask.bit_length() - 1
        if top not in equations:
            equations[top] = (mask, value)
            return
        mask, value = mask ^ equations[top][0], value ^ equations[top][1]


def _solve(equations: dict[int, tuple[int, int]], count: int) -> list[int]:
    rows: list[int] = []
    for top in range(count):
        mask, value = equations[top]
        for lower in range(top):
            if mask >> lower & 1:
                value ^= rows[lower]
        rows.append(value)
    return rows
