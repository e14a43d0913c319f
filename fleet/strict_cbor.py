"""A reader for the few CBOR items that our wire formats use, in their one deterministic encoding (RFC 8949, 4.2.1).

A general decoder accepts long-form lengths, tags and floats, so two different byte strings could mean the same
manifest; here every value has exactly one encoding, as the parser in the node's firmware demands too.
"""

from __future__ import annotations

NIL = 0xF6
_UNSIGNED, _NEGATIVE, _BYTES, _ARRAY = 0, 1, 2, 4


class CborError(ValueError):
    """The bytes are not the expected item; the message names the field, what was found and what was wanted."""


class Reader:
    """Reads items one after the other; every method names the field that it reads and raises only CborError."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, count: int, field: str) -> bytes:
        """The next `count` bytes as they are."""
        piece = self._data[self._at : self._at + count]
        if len(piece) != count:
            raise CborError(f"{field}: the data ends after {len(self._data)} bytes, {count - len(piece)} are missing")
        self._at += count
        return piece

    def _head(self, field: str) -> tuple[int, int]:
        first = self.take(1, field)[0]
        major, info = first >> 5, first & 0x1F
        if info < 24:
            return major, info
        if info > 27:
            raise CborError(f"{field}: byte 0x{first:02x} is not a definite-length item")
        width = 1 << (info - 24)
        value = int.from_bytes(self.take(width, field), "big")
        smallest = 24 if width == 1 else 1 << (4 * width)
        if value < smallest:
            raise CborError(f"{field}: {value} is not in its shortest encoding")
        return major, value

    def integer(self, field: str, low: int, high: int) -> int:
        """An integer in low..high, both included."""
        major, value = self._head(field)
        if major not in (_UNSIGNED, _NEGATIVE):
            raise CborError(f"{field}: CBOR major type {major}, must be an integer")
        value = value if major == _UNSIGNED else -1 - value
        if not low <= value <= high:
            raise CborError(f"{field}: {value} is outside {low}..{high}")
        return value

    def byte_string(self, field: str, *lengths: int) -> bytes:
        """A byte string of one of the given lengths, or of any length where none is given."""
        major, count = self._head(field)
        if major != _BYTES:
            raise CborError(f"{field}: CBOR major type {major}, must be a byte string")
        if lengths and count not in lengths:
            raise CborError(f"{field}: {count} bytes, must be {' or '.join(map(str, lengths))}")
        return self.take(count, field)

    def array(self, field: str, low: int, high: int) -> int:
        """The head of an array of low..high items; returns the number of items, which the caller reads next."""
        major, count = self._head(field)
        if major != _ARRAY:
            raise CborError(f"{field}: CBOR major type {major}, must be an array")
        if not low <= count <= high:
            raise CborError(f"{field}: {count} items, must be {low}..{high}")
        return count

    def nil(self) -> bool:
        """True, and past it, where the next item is nil."""
        if self._data[self._at : self._at + 1] == bytes([NIL]):
            self._at += 1
            return True
        return False

    def literal(self, field: str, expected: bytes) -> None:
        """Bytes that can have only one value."""
        found = self.take(len(expected), field)
        if found != expected:
            raise CborError(f"{field}: {found.hex()}, must be {expected.hex()}")

    def end(self, field: str) -> None:
        """Nothing may follow."""
        extra = len(self._data) - self._at
        if extra:
            raise CborError(f"{field}: {extra} bytes follow its end, must be none")
