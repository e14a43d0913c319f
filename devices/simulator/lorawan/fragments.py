"""TS004-1.0.0 on the node: commands of port 201, and the decoder of the parity fragments. Fields are little-endian.

Parity row n (n = fragment number - fragment count, from 1) is a line of a pseudo-random matrix over GF(2); the XOR of
the fragments that the line names. The dialects differ in what a position drawn twice means (docs/lorawan.md).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

Dialect = Literal["ts004-v1", "ts004-v2"]

STATUS, SETUP, DELETE, DATA = 0x01, 0x02, 0x03, 0x08
_PACKAGE_VERSION = 0x00
_PACKAGE_ID, _VERSION = 3, 1
_SETUP_BYTES = 10
_ALGORITHM_UNSUPPORTED, _NO_MEMORY, _INDEX_UNSUPPORTED = 1, 2, 4


@dataclass(frozen=True)
class Limits:
    """What the firmware has RAM for. `losses`: rows of the parity matrix."""

    fragments: int = 2048
    fragment_bytes: int = 242
    losses: int = 512


@dataclass
class Session:
    """One block on its way. `descriptor`: the 4 bytes of the setup."""

    count: int
    size: int
    padding: int
    descriptor: bytes
    dialect: Dialect
    losses_max: int
    received: int = 0  # fragments heard, raw and parity
    highest: int = 0
    raw: int = 0
    out_of_memory: bool = False
    ended: bool = False  # the block was taken or refused; what still comes is nothing new
    _known: dict[int, int] = field(default_factory=dict)  # fragment, from 0 -> its bytes as a number
    _rows: dict[int, tuple[int, int]] = field(default_factory=dict)  # leading position -> (positions, XOR)
    _lacked: int = 0

    @property
    def complete(self) -> bool:
        return self.lacking == 0

    @property
    def lacking(self) -> int:
        """Independent fragments that it still needs."""
        return self._lacked if self.ended else self.count - len(self._known) - len(self._rows)

    @property
    def lost(self) -> int:
        """Raw fragments that passed by unheard, whether recovered since or not."""
        return min(self.highest, self.count) - self.raw

    def end(self) -> None:
        """The block has been used: its memory is free, its numbers are kept for the status answer."""
        self._lacked = self.lacking
        self.ended = True
        self._known.clear()
        self._rows.clear()

    def take(self, number: int, data: bytes) -> None:
        """Fragment `number` (from 1). What is not newer than the last one heard is dropped, as decoders in the field do."""
        if self.complete or self.ended or number <= self.highest or len(data) != self.size:
            return
        self.highest = number
        self.received += 1
        value = int.from_bytes(data, "big")
        if number <= self.count:
            self.raw += 1
            self._known[number - 1] = value
        elif self.count - len(self._known) > self.losses_max:
            self.out_of_memory = True
        else:
            self._reduce(parity_line(number - self.count, self.count, self.dialect), value)

    def front(self) -> bytes:
        """The block as far as it is known without a gap."""
        known = 0
        while known in self._known:
            known += 1
        return b"".join(self._known[at].to_bytes(self.size, "big") for at in range(known))

    def block(self) -> bytes:
        """The whole block without its padding."""
        whole = self.front()
        return whole[: len(whole) - self.padding]

    def _reduce(self, line: int, value: int) -> None:
        for at in _positions(line):
            if at in self._known:
                line ^= 1 << at
                value ^= self._known[at]
        while line:
            lead = line.bit_length() - 1
            if lead not in self._rows:
                self._rows[lead] = (line, value)
                break
            other, other_value = self._rows[lead]
            line, value = line ^ other, value ^ other_value
        if self.lacking == 0:
            self._solve()

    def _solve(self) -> None:
        # Rising: the positions of a row below its leading one are solved before it.
        for lead in sorted(self._rows):
            line, value = self._rows[lead]
            for at in _positions(line ^ 1 << lead):
                value ^= self._known[at]
            self._known[lead] = value
        self._rows.clear()


def _positions(line: int) -> list[int]:
    found = []
    while line:
        low = line & -line
        found.append(low.bit_length() - 1)
        line ^= low
    return found


@lru_cache(maxsize=8192)  # nodes with the same block draw the same lines
def parity_line(row: int, count: int, dialect: Dialect) -> int:
    """The fragments in a parity row as bits, bit 0 the first. `row` from 1."""
    extra = 1 if count & (count - 1) == 0 else 0  # a power of two repeats the generator's period
    state, line, drawn = 1 + 1001 * row, 0, 0
    while drawn < count // 2:
        position = count
        while position >= count:
            state = (state >> 1) + (((state & 1) ^ (state >> 5 & 1)) << 22)
            position = state % (count + extra)
        if dialect == "ts004-v2" and line >> position & 1:
            continue
        line |= 1 << position
        drawn += 1
    return line


class FragmentTransport:
    """The package of port 201 with one session, index 0. `opened` counts the setups that were accepted."""

    def __init__(self, dialect: Dialect, limits: Limits, *, missing_are_losses: bool = False) -> None:
        """`missing_are_losses`: the status answer tells what was lost raw, for ever, as LoRaMac-node does."""
        self.session: Session | None = None
        self.opened = 0
        self._dialect, self._limits, self._missing_are_losses = dialect, limits, missing_are_losses

    def forget(self) -> None:
        """A reset, or an update that has ended: fragment memory is free again."""
        self.session = None

    def take(self, payload: bytes, *, busy: bool = False) -> bytes:
        """Work off the commands of one downlink; the answers to send, in order. `busy`: there is no memory to lend."""
        answers = b""
        at = 0
        while at < len(payload):
            command, rest = payload[at], payload[at + 1 :]
            if command == _PACKAGE_VERSION:
                answers, at = answers + bytes([_PACKAGE_VERSION, _PACKAGE_ID, _VERSION]), at + 1
            elif command == STATUS and rest:
                answers, at = answers + self._status(rest[0]), at + 2
            elif command == SETUP and len(rest) >= _SETUP_BYTES:
                answers, at = answers + self._set_up(rest[:_SETUP_BYTES], busy), at + 1 + _SETUP_BYTES
            elif command == DELETE and rest:
                answers, at = answers + self._delete(rest[0] & 3), at + 2
            elif command == DATA and len(rest) > 2:
                self._fragment(int.from_bytes(rest[:2], "little"), rest[2:])
                break  # data run to the end of the frame
            else:
                break  # unknown or cut short: the length of what follows cannot be known
        return answers

    def _set_up(self, request: bytes, busy: bool) -> bytes:
        index = request[0] >> 4 & 3
        count, size = int.from_bytes(request[1:3], "little"), request[3]
        status = 0
        if request[4] >> 3 & 7:
            status |= _ALGORITHM_UNSUPPORTED
        fits = 0 < count <= self._limits.fragments and 0 < size <= self._limits.fragment_bytes
        if busy or not fits:
            status |= _NO_MEMORY
        if index:
            status |= _INDEX_UNSUPPORTED
        if not status:
            self.opened += 1
            self.session = Session(count, size, request[5], request[6:10], self._dialect, self._limits.losses)
        return bytes([SETUP, index << 6 | status])

    def _fragment(self, field_: int, data: bytes) -> None:
        if self.session is not None and field_ >> 14 == 0:
            self.session.take(field_ & 0x3FFF, data)

    def _status(self, parameter: int) -> bytes:
        session = self.session
        if parameter >> 1 & 3 or session is None:  # 1.0.0 has no way to say so: silence
            return b""
        if session.lacking == 0 and not parameter & 1:
            return b""
        missing = session.lost if self._missing_are_losses else session.lacking
        heard = session.received & 0x3FFF
        return bytes([STATUS]) + heard.to_bytes(2, "little") + bytes([min(missing, 255), session.out_of_memory])

    def _delete(self, index: int) -> bytes:
        if index or self.session is None:
            return bytes([DELETE, 4 | index])
        self.session = None
        return bytes([DELETE, index])
