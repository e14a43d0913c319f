"""Stateless Block2 (RFC 7959 2.4): the answer depends on the byte offset alone, so a node may go on after a
reboot, from another address, with another block size."""

from __future__ import annotations

from typing import NamedTuple

SIZE_EXPONENT_MAX = 6  # 1024 bytes; 7 is reserved over UDP


class BadBlock(ValueError):
    """The Block2 option asks for what is not there; the message says why."""


class Block(NamedTuple):
    number: int
    more: bool
    size_exponent: int  # the block has up to 2 ** (size_exponent + 4) bytes
    offset: int
    payload: bytes


def cut_block(body: bytes, *, number: int, size_exponent: int, size_exponent_max: int) -> Block:
    """The block at byte `number * 2**(size_exponent + 4)`, made smaller where this server sends less at a time.

    A smaller block keeps the byte offset and so gets another number: a client that resumed at NUM=4 of 1024 bytes and
    is answered NUM=4 of 512 bytes drops its download (measured with a widespread client). Raises BadBlock.
    """
    if not 0 <= size_exponent <= SIZE_EXPONENT_MAX:
        raise BadBlock(f"Block2: size exponent {size_exponent} is reserved, must be 0..{SIZE_EXPONENT_MAX}")
    offset = number << (size_exponent + 4)
    if offset >= len(body) and offset:
        raise BadBlock(f"Block2: byte {offset} is behind the end of {len(body)} bytes")
    used = min(size_exponent, size_exponent_max)
    end = offset + (1 << (used + 4))
    return Block(offset >> (used + 4), end < len(body), used, offset, body[offset:end])
