from __future__ import annotations

import aiocoap
import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.simulator import coap

OPTIONS = st.lists(st.tuples(st.integers(0, 65000), st.binary(max_size=300)), max_size=6)
MESSAGES = st.builds(
    coap.Message,
    st.integers(0, 3),
    st.integers(0, 255),
    st.integers(0, 65535),
    st.binary(max_size=8),
    OPTIONS.map(lambda options: sorted(options, key=lambda option: option[0])),
    st.binary(max_size=64),
)


@given(MESSAGES)
def test_a_message_survives_encoding(message: coap.Message) -> None:
    assert coap.decode(coap.encode(message)) == message


@given(st.binary(max_size=80))
def test_any_bytes_are_a_message_or_refused(data: bytes) -> None:
    try:
        message = coap.decode(data)
    except coap.CoapInvalid:
        return
    assert coap.decode(coap.encode(message)) == message


def test_the_independent_implementation_reads_the_same() -> None:
    options = [(coap.URI_PATH, b"b"), (coap.URI_PATH, b"x" * 20), (coap.BLOCK2, coap.block_option(2048, 512))]
    data = coap.encode(coap.Message(coap.CON, coap.GET, 7, b"tok", options, b"body"))
    theirs = aiocoap.Message.decode(data)
    assert (theirs.mid, theirs.token, theirs.payload) == (7, b"tok", b"body")
    assert theirs.opt.uri_path == ("b", "x" * 20)
    assert (theirs.opt.block2.start, theirs.opt.block2.size) == (2048, 512)


@pytest.mark.parametrize(("offset", "size"), [(100, 512), (0, 100), (0, 8), (0, 2048)])
def test_a_block_off_its_grid_cannot_be_asked_for(offset: int, size: int) -> None:
    with pytest.raises(ValueError, match="block"):
        coap.block_option(offset, size)
