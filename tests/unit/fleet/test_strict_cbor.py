"""One value, one encoding (RFC 8949, 4.2.1): all other bytes are refused with the name of the field."""

from __future__ import annotations

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.strict_cbor import CborError, Reader

LOW, HIGH = -(2**64), 2**64 - 1


@given(st.integers(LOW, HIGH))
def test_the_shortest_encoding_of_an_integer_is_read(value: int) -> None:
    reader = Reader(cbor2.dumps(value))
    assert reader.integer("n", LOW, HIGH) == value
    reader.end("n")


@given(st.binary(max_size=300))
def test_the_shortest_encoding_of_a_byte_string_is_read(value: bytes) -> None:
    reader = Reader(cbor2.dumps(value))
    assert reader.byte_string("b", len(value)) == value
    reader.end("b")


@given(st.binary(min_size=1, max_size=9))
def test_bytes_read_as_an_integer_are_its_one_encoding(data: bytes) -> None:
    reader = Reader(data)
    try:
        value = reader.integer("n", LOW, HIGH)
        reader.end("n")
    except CborError:
        return
    assert cbor2.dumps(value) == data


@pytest.mark.parametrize("encoding", ["1817", "1900ff", "1a0000ffff", "1b00000000ffffffff", "3817"])
def test_a_longer_form_than_needed_is_refused(encoding: str) -> None:
    with pytest.raises(CborError, match=r"n: .* not in its shortest encoding"):
        Reader(bytes.fromhex(encoding)).integer("n", LOW, HIGH)


@pytest.mark.parametrize("encoding", ["1c", "1f", "5f4100ff", "9f00ff"])
def test_reserved_and_indefinite_lengths_are_refused(encoding: str) -> None:
    with pytest.raises(CborError, match="not a definite-length item"):
        Reader(bytes.fromhex(encoding)).integer("n", LOW, HIGH)


@pytest.mark.parametrize(("value", "fits"), [(0, False), (1, True), (5, True), (6, False), (-1, False)])
def test_both_ends_of_a_range_belong_to_it(value: int, fits: bool) -> None:
    reader = Reader(cbor2.dumps(value))
    if fits:
        assert reader.integer("n", 1, 5) == value
    else:
        with pytest.raises(CborError, match=rf"n: {value} is outside 1\.\.5"):
            reader.integer("n", 1, 5)


def test_another_type_another_length_and_too_few_bytes_are_refused_by_name() -> None:
    with pytest.raises(CborError, match="n: CBOR major type 3, must be an integer"):
        Reader(cbor2.dumps("text")).integer("n", 0, 9)
    with pytest.raises(CborError, match="b: 3 bytes, must be 4 or 8"):
        Reader(cbor2.dumps(b"abc")).byte_string("b", 4, 8)
    with pytest.raises(CborError, match="b: the data ends after 2 bytes, 2 are missing"):
        Reader(bytes.fromhex("4361")).byte_string("b")


def test_an_array_has_the_wanted_number_of_items_and_nothing_follows() -> None:
    reader = Reader(bytes.fromhex("8201f600"))
    assert (reader.array("a", 1, 2), reader.integer("first", 1, 1), reader.nil(), reader.nil()) == (2, 1, True, False)
    with pytest.raises(CborError, match="a: 1 bytes follow its end"):
        reader.end("a")
    with pytest.raises(CborError, match=r"a: 2 items, must be 3\.\.4"):
        Reader(b"\x82").array("a", 3, 4)


def test_a_literal_is_exactly_that() -> None:
    with pytest.raises(CborError, match="header: a10126, must be a10127"):
        Reader(bytes.fromhex("a10126")).literal("header", bytes.fromhex("a10127"))
