"""TS004 on the simulated node against published vectors, and its decoder against Gaussian elimination written out."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devices.simulator.lorawan.fragments import Dialect, FragmentTransport, Limits, Session, parity_line

# Published: 100 bytes 0..99 in fragments of 10; the first and the second parity fragment.
_VECTORS: list[tuple[Dialect, int, str]] = [
    ("ts004-v1", 1, "262622222e2e22222626"),
    ("ts004-v2", 1, "686952535c5d76777071"),
    ("ts004-v1", 2, "5455565758596a6b7c7d"),
    ("ts004-v2", 2, "5455565758596a6b7c7d"),
]


def rows_of(block: bytes, size: int) -> list[bytes]:
    return [block[at : at + size] for at in range(0, len(block), size)]


def parity(rows: list[bytes], number: int, dialect: Dialect) -> bytes:
    line = parity_line(number, len(rows), dialect)
    value = 0
    for at, row in enumerate(rows):
        if line >> at & 1:
            value ^= int.from_bytes(row, "big")
    return value.to_bytes(len(rows[0]), "big")


def session(count: int, size: int, dialect: Dialect = "ts004-v1", losses: int = 512) -> Session:
    return Session(count, size, 0, bytes(4), dialect, losses)


def setup(count: int, size: int, *, padding: int = 0, index: int = 0, control: int = 0) -> bytes:
    return bytes([2, index << 4]) + count.to_bytes(2, "little") + bytes([size, control, padding]) + b"abcd"


def data(number: int, payload: bytes, index: int = 0) -> bytes:
    return b"\x08" + (index << 14 | number).to_bytes(2, "little") + payload


@pytest.mark.parametrize(("dialect", "number", "expected"), _VECTORS)
def test_parity_fragments_are_those_of_the_published_tables(dialect: Dialect, number: int, expected: str) -> None:
    assert parity(rows_of(bytes(range(100)), 10), number, dialect).hex() == expected


def rank(lines: list[int]) -> int:
    """Independent lines over GF(2), by pivots on the lowest bit (the decoder pivots on the highest)."""
    pivots: list[int] = []
    for line in lines:
        for pivot in pivots:
            if line & (pivot & -pivot):
                line ^= pivot
        if line:
            pivots.append(line)
    return len(pivots)


@settings(max_examples=200, deadline=None)
@given(
    count=st.integers(1, 40),
    dialect=st.sampled_from(["ts004-v1", "ts004-v2"]),
    seed=st.integers(0, 1 << 32),
    loss=st.sampled_from([0.0, 0.1, 0.4, 0.8]),
)
def test_a_block_is_whole_exactly_when_the_fragments_heard_determine_it(
    count: int, dialect: Dialect, seed: int, loss: float
) -> None:
    rng = random.Random(seed)
    size = rng.randrange(1, 20)
    rows = rows_of(rng.randbytes(count * size), size)
    decoder = session(count, size, dialect)
    heard: list[int] = []
    for number in range(1, 2 * count + 30):
        if rng.random() < loss:
            continue
        if number <= count:
            heard.append(1 << (number - 1))
            decoder.take(number, rows[number - 1])
        else:
            heard.append(parity_line(number - count, count, dialect))
            decoder.take(number, parity(rows, number - count, dialect))
        assert decoder.lacking == count - rank(heard)
        if decoder.complete:
            assert decoder.block() == b"".join(rows)
            break


@settings(max_examples=60, deadline=None)
@given(count=st.integers(2, 9), seed=st.integers(0, 1 << 32))
def test_a_decoded_block_is_the_only_one_that_fits_what_was_heard(count: int, seed: int) -> None:
    """Every block of single bits is tried: all that agree with what was heard are the one that was decoded."""
    rng = random.Random(seed)
    bits = [rng.randrange(2) for _ in range(count)]
    rows = [bytes([bit]) for bit in bits]
    decoder, heard = session(count, 1), []
    for number in range(1, 4 * count):
        if rng.random() < 0.5:
            continue
        line = 1 << number - 1 if number <= count else parity_line(number - count, count, "ts004-v1")
        value = rows[number - 1] if number <= count else parity(rows, number - count, "ts004-v1")
        decoder.take(number, value)
        heard.append((line, value[0]))
        fitting = [
            guess
            for guess in itertools.product((0, 1), repeat=count)
            if all(sum(guess[at] for at in range(count) if line >> at & 1) % 2 == value for line, value in heard)
        ]
        assert decoder.complete == (len(fitting) == 1)
    if decoder.complete:
        assert list(decoder.block()) == bits


def test_the_wrong_dialect_gives_a_whole_and_corrupt_block() -> None:
    rows = rows_of(random.Random(5).randbytes(1000), 10)
    decoder = session(100, 10, "ts004-v1")
    for number in range(11, 101):
        decoder.take(number, rows[number - 1])
    for number in range(1, 40):
        decoder.take(100 + number, parity(rows, number, "ts004-v2"))
    assert decoder.complete
    assert decoder.block() != b"".join(rows)


def test_a_raw_fragment_that_comes_late_is_dropped() -> None:
    rows = rows_of(bytes(range(40)), 10)
    decoder = session(4, 10)
    for number in (1, 3, 4, 2):
        decoder.take(number, rows[number - 1])
    assert (decoder.complete, decoder.lacking) == (False, 1)


def test_a_fragment_of_another_size_is_dropped() -> None:
    decoder = session(2, 10)
    decoder.take(1, bytes(9))
    assert decoder.received == 0


def test_more_losses_than_rows_of_matrix_memory_are_told_and_not_decoded() -> None:
    transport = FragmentTransport("ts004-v1", Limits(losses=2))
    rows = rows_of(bytes(range(100)), 10)
    assert transport.take(setup(10, 10)) == b"\x02\x00"
    for number in range(4, 11):
        transport.take(data(number, rows[number - 1]))
    for number in range(1, 9):
        transport.take(data(10 + number, parity(rows, number, "ts004-v1")))
    assert transport.take(b"\x01\x01") == bytes([1, 15, 0, 3, 1])


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        (setup(2049, 10), b"\x02\x02"),
        (setup(10, 243), b"\x02\x02"),
        (setup(0, 10), b"\x02\x02"),
        (setup(10, 10, control=8), b"\x02\x01"),
        (setup(10, 10, index=3), b"\x02\xc4"),
        (bytes.fromhex("023100048040400102" + "0304"), b"\x02\xc4"),
        (setup(2048, 242), b"\x02\x00"),
    ],
)
def test_a_setup_is_answered_with_what_the_firmware_can_take(request_: bytes, answer: bytes) -> None:
    assert FragmentTransport("ts004-v1", Limits()).take(request_) == answer


def test_a_busy_node_sets_nothing_up_and_still_answers_for_what_it_had() -> None:
    transport = FragmentTransport("ts004-v1", Limits())
    transport.take(setup(2, 3))
    transport.take(data(1, b"abc"))
    assert transport.take(setup(2, 3), busy=True) == b"\x02\x02"
    assert transport.take(b"\x01\x01", busy=True) == bytes([1, 1, 0, 1, 0])


def test_a_setup_on_an_open_session_clears_it() -> None:
    transport = FragmentTransport("ts004-v1", Limits())
    transport.take(setup(2, 3))
    transport.take(data(1, b"abc"))
    transport.take(setup(2, 3))
    assert transport.take(b"\x01\x01") == bytes([1, 0, 0, 2, 0])


def test_the_padding_is_no_part_of_the_block() -> None:
    transport = FragmentTransport("ts004-v1", Limits())
    transport.take(setup(2, 3, padding=2))
    transport.take(data(1, b"abc"))
    transport.take(data(2, b"d\0\0"))
    assert transport.session is not None
    assert transport.session.block() == b"abcd"


def test_a_fragment_of_another_session_index_is_not_taken() -> None:
    transport = FragmentTransport("ts004-v1", Limits())
    transport.take(setup(2, 3))
    transport.take(data(1, b"abc", index=1))
    assert transport.session is not None
    assert transport.session.received == 0


def test_without_a_session_a_status_request_gets_no_answer_and_a_delete_says_so() -> None:
    transport = FragmentTransport("ts004-v1", Limits())
    assert transport.take(b"\x01\x01") == b""
    assert transport.take(b"\x03\x00") == b"\x03\x04"
    transport.take(setup(2, 3))
    assert transport.take(b"\x03\x00") == b"\x03\x00"
    assert transport.take(b"\x01\x01") == b""


def test_who_has_all_answers_only_a_request_to_all() -> None:
    transport = FragmentTransport("ts004-v1", Limits())
    transport.take(setup(1, 3))
    transport.take(data(1, b"abc"))
    assert transport.take(b"\x01\x00") == b""
    assert transport.take(b"\x01\x01") == bytes([1, 1, 0, 0, 0])


def test_a_node_may_tell_its_losses_after_it_has_decoded() -> None:
    transport = FragmentTransport("ts004-v1", Limits(), missing_are_losses=True)
    rows = rows_of(bytes(range(100)), 10)
    transport.take(setup(10, 10))
    for number in range(2, 11):
        transport.take(data(number, rows[number - 1]))
    for number in range(1, 20):
        transport.take(data(10 + number, parity(rows, number, "ts004-v1")))
    assert transport.session is not None
    assert transport.session.complete
    assert transport.take(b"\x01\x01")[3] == 1


def test_several_commands_in_one_payload_are_answered_in_order() -> None:
    transport = FragmentTransport("ts004-v1", Limits())
    assert transport.take(b"\x00" + setup(2, 3) + b"\x01\x01") == bytes([0, 3, 1, 2, 0, 1, 0, 0, 2, 0])


@given(st.lists(st.binary(max_size=30), max_size=20))
def test_no_bytes_break_the_transport(payloads: list[bytes]) -> None:
    transport = FragmentTransport("ts004-v2", Limits())
    for payload in payloads:
        transport.take(payload)
