"""CoAP messages (RFC 7252, Block2 of RFC 7959) for simulated nodes.

Own code and not aiocoap: the gateway runs on aiocoap, and a bug must not cancel itself out; and 300 contexts of it
would each bring their own socket handling, outside of the stand-in network and of simulated time.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

CON, NON, ACK, RST = range(4)

EMPTY, GET, POST, PUT, DELETE = range(5)


def code(kind: int, detail: int) -> int:
    """2.04 -> 68."""
    return kind << 5 | detail


CREATED, CHANGED, CONTENT = code(2, 1), code(2, 4), code(2, 5)
BAD_REQUEST, FORBIDDEN, NOT_FOUND = code(4, 0), code(4, 3), code(4, 4)
METHOD_NOT_ALLOWED, NOT_ACCEPTABLE = code(4, 5), code(4, 6)

ETAG, LOCATION_PATH, URI_PATH, CONTENT_FORMAT, URI_QUERY, ACCEPT, BLOCK2, SIZE2 = 4, 8, 11, 12, 15, 17, 23, 28
URI_HOST, OBSERVE, URI_PORT, BLOCK1 = 3, 6, 7, 27

TEXT, LINK_FORMAT, OCTETS, SENML_CBOR = 0, 40, 42, 112


class CoapInvalid(ValueError):
    """The datagram is not a CoAP message."""


@dataclass
class Message:
    """`options` in any order: (number, value) pairs."""

    type: int
    code: int
    mid: int
    token: bytes = b""
    options: list[tuple[int, bytes]] = field(default_factory=list)
    payload: bytes = b""

    def values(self, option: int) -> list[bytes]:
        return [value for number, value in self.options if number == option]

    def uint(self, option: int) -> int | None:
        """The first such option as a number, None where there is none."""
        values = self.values(option)
        return int.from_bytes(values[0], "big") if values else None

    @property
    def path(self) -> str:
        return "/" + "/".join(value.decode("utf-8", "replace") for value in self.values(URI_PATH))

    @property
    def is_request(self) -> bool:
        return 1 <= self.code < 32

    @property
    def block2(self) -> tuple[int, bool, int] | None:
        """(byte offset, more, bytes in a block), None where the option is not there."""
        value = self.uint(BLOCK2)
        return None if value is None else ((value >> 4) << ((value & 7) + 4), bool(value & 8), 1 << ((value & 7) + 4))


def uint(value: int) -> bytes:
    """A CoAP number: big-endian without leading zeros (RFC 7252, 3.2)."""
    return value.to_bytes((value.bit_length() + 7) // 8, "big")


def block_option(offset: int, size: int, more: bool = False) -> bytes:
    """A Block option value. `size`: 16..1024, a power of two; `offset`: bytes, a multiple of it."""
    exponent = size.bit_length() - 5
    if size != 1 << (exponent + 4) or not 0 <= exponent <= 6 or offset % size:
        raise ValueError(f"block: {size} bytes at {offset}, must be a power of two 16..1024 at a multiple of it")
    return uint(offset // size << 4 | more << 3 | exponent)


def encode(message: Message) -> bytes:
    out = bytearray(
        struct.pack("!BBH", 0x40 | message.type << 4 | len(message.token), message.code, message.mid) + message.token
    )
    last = 0
    for number, value in sorted(message.options, key=lambda option: option[0]):
        delta, delta_tail = _nibble(number - last)
        length, length_tail = _nibble(len(value))
        out += bytes([delta << 4 | length]) + delta_tail + length_tail + value
        last = number
    if message.payload:
        out += b"\xff" + message.payload
    return bytes(out)


def decode(data: bytes) -> Message:
    """Raises CoapInvalid."""
    if len(data) < 4 or data[0] >> 6 != 1 or data[0] & 15 > 8 or len(data) < 4 + (data[0] & 15):
        raise CoapInvalid("header: not CoAP version 1 with a token of at most 8 bytes")
    at = 4 + (data[0] & 15)
    message = Message(data[0] >> 4 & 3, data[1], int.from_bytes(data[2:4], "big"), data[4:at])
    number = 0
    while at < len(data):
        head, at = data[at], at + 1
        if head == 0xFF:
            if at == len(data):
                raise CoapInvalid("payload: marker without payload")
            message.payload = data[at:]
            break
        delta, at = _extended(head >> 4, data, at)
        length, at = _extended(head & 15, data, at)
        number += delta
        if at + length > len(data):
            raise CoapInvalid(f"option {number}: {length} bytes, the message has {len(data) - at} left")
        message.options.append((number, data[at : at + length]))
        at += length
    return message


def _nibble(value: int) -> tuple[int, bytes]:
    if value < 13:
        return value, b""
    return (13, bytes([value - 13])) if value < 269 else (14, (value - 269).to_bytes(2, "big"))


def _extended(nibble: int, data: bytes, at: int) -> tuple[int, int]:
    if nibble < 13:
        return nibble, at
    width = nibble - 12
    if nibble == 15 or at + width > len(data):
        raise CoapInvalid("option: reserved or truncated length")
    return int.from_bytes(data[at : at + width], "big") + (13 if nibble == 13 else 269), at + width
