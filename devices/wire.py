"""Node reports, the server's side: the packed state report and the health report in parts (docs/wire-contract.md).

The high half of byte 0 tells the kind: 1 a state report, 2 a part of a health report.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, fields
from enum import IntEnum

import cbor2

from fleet.strict_cbor import CborError, Reader

STATE_BYTES = 11
PART_BYTES_MAX = 36
PART_HEADER_BYTES = 3
PARTS_MAX = 16
CLASSES_MAX = 32
_STATE_KIND, _HEALTH_KIND = 1, 2
# The second says one thing more: how much arena the image takes. Firmware in the field goes on with the first.
_HEALTH_FIELDS = {1: 14, 2: 15}
_UINT32_MAX = 0xFFFF_FFFF


class WireError(ValueError):
    """Bytes from a node, or values for one, break the contract; the message names the field."""


class NodeState(IntEnum):
    """What a node is doing, in the low half of byte 0."""

    IDLE = 0
    RECEIVING = 1
    STAGED = 2
    TRIAL = 3
    CONFIRMED = 4
    REVERTED = 5
    FAILED = 6
    REJECTED = 7
    FALLBACK = 8


class Cause(IntEnum):
    """Why a node is in its state; the numbers are those of `devices/agent/modelfleet_agent.h`."""

    NONE = 0
    WRONG_CLASS = 1
    WRONG_BASE = 2
    LOWER_SEQUENCE = 3
    BAD_SIGNATURE = 4
    BAD_DIGEST = 5
    SELF_TEST_FAILED = 6
    FLASH_FAILURE = 7
    NO_MEMORY = 8
    WATCHDOG = 9
    NO_SERVER_CONTACT = 10
    COMMANDED = 11
    PATCH_INVALID = 12
    BAD_FORMAT = 13
    UNKNOWN_KEY = 14
    UNKNOWN_CODEC = 15
    BUSY = 16
    NOT_ALLOWED = 17
    NO_PREVIOUS = 18
    REBOOTED = 19

    @property
    def label(self) -> str:
        """The name in vectors, events and on screens: `wrong-class`."""
        return self.name.lower().replace("_", "-")


@dataclass(frozen=True)
class StateReport:
    """What a node runs and holds. Prefixes are the first 4 bytes of the image's SHA-256; zeros: the slot is empty."""

    state: NodeState
    cause: Cause
    active_prefix: bytes
    standby_prefix: bytes
    sequence_low: int  # 0..255, low byte of the sequence of the assignment that the state speaks of

    def encode(self) -> bytes:
        """The 11 bytes. Raises WireError."""
        if len(self.active_prefix) != 4 or len(self.standby_prefix) != 4:
            raise WireError("active or standby digest prefix: must have 4 bytes")
        if not 0 <= self.sequence_low <= 255:
            raise WireError(f"sequence: {self.sequence_low}, must be 0..255")
        head = bytes([_STATE_KIND << 4 | self.state, self.cause])
        return head + self.active_prefix + self.standby_prefix + bytes([self.sequence_low])


def decode_state(data: bytes) -> StateReport:
    """Exactly 11 bytes to a report. Raises WireError for another length, version, state or cause."""
    if len(data) != STATE_BYTES:
        raise WireError(f"state report: {len(data)} bytes, must be {STATE_BYTES}")
    if data[0] >> 4 != _STATE_KIND:
        raise WireError(f"version: {data[0] >> 4}, must be {_STATE_KIND}")
    try:
        state, cause = NodeState(data[0] & 0x0F), Cause(data[1])
    except ValueError as error:
        raise WireError(f"state or cause: {error}") from error
    return StateReport(state, cause, data[2:6], data[6:10], data[10])


def claims_success(report: bytes) -> bool:
    """Whether a report is a state report that says CONFIRMED; its other bytes may be wrong."""
    return report[:1] == bytes([_STATE_KIND << 4 | NodeState.CONFIRMED])


def is_health_part(report: bytes) -> bool:
    """Whether a report is a part of a health report and not a state report."""
    return bool(report) and report[0] >> 4 == _HEALTH_KIND


@dataclass(frozen=True)
class HealthReport:
    """Counters since the image was activated; all unsigned 32-bit, and never reset while that image is active."""

    active_prefix: bytes  # 4 bytes: the image that the counters speak of
    inferences: int
    class_counts: tuple[int, ...]  # decisions per class, up to 32; empty for a model without classes
    low_confidence: int
    out_of_bounds: int  # inputs outside the bounds of the guard
    fallbacks: int  # decisions taken by the heuristic
    shadow_disagreements: int  # old and new image decided differently on one window
    deadline_misses: int
    p99_latency_us: int
    resets: int
    sample_rate_error_ppm: int  # signed 32-bit, measured against the nominal rate
    battery_mv: int  # 0..65535; 0: not measured
    arena_used_bytes: int = 0  # as the runtime itself says after its first inference; 0: not measured

    def encode(self) -> bytes:
        """The CBOR array, in the first layout where that says it all. Raises WireError where a value is out of range."""
        *items, arena = self._items()
        data = cbor2.dumps([2, *items, arena, None] if arena else [1, *items, None])
        if decode_health(data) != self:
            raise WireError("health report: a field has a type that CBOR turns into another one")
        return data

    def _items(self) -> list[object]:
        values = [getattr(self, field.name) for field in fields(self)]
        return [list(value) if isinstance(value, tuple) else value for value in values]


def decode_health(data: bytes) -> HealthReport:
    """The CBOR array to a report; the last item is nil and reserved for score quantiles. Raises WireError."""
    reader = Reader(data)
    try:
        found = reader.array("health report", min(_HEALTH_FIELDS.values()), max(_HEALTH_FIELDS.values()))
        layout = reader.integer("layout", min(_HEALTH_FIELDS), max(_HEALTH_FIELDS))
        if found != _HEALTH_FIELDS[layout]:
            raise WireError(f"health report: {found} items, must be {_HEALTH_FIELDS[layout]} in layout {layout}")
        active_prefix = reader.byte_string("active digest prefix", 4)
        inferences = reader.integer("inferences", 0, _UINT32_MAX)
        classes = reader.array("class counts", 0, CLASSES_MAX)
        counts = tuple(reader.integer("class count", 0, _UINT32_MAX) for _ in range(classes))
        low_confidence = reader.integer("low confidence", 0, _UINT32_MAX)
        out_of_bounds = reader.integer("out of bounds", 0, _UINT32_MAX)
        fallbacks = reader.integer("fallbacks", 0, _UINT32_MAX)
        disagreements = reader.integer("shadow disagreements", 0, _UINT32_MAX)
        misses = reader.integer("deadline misses", 0, _UINT32_MAX)
        p99 = reader.integer("p99 latency", 0, _UINT32_MAX)
        resets = reader.integer("resets", 0, _UINT32_MAX)
        rate = reader.integer("sample-rate error", -(1 << 31), (1 << 31) - 1)
        battery = reader.integer("battery", 0, 0xFFFF)
        arena = reader.integer("arena used", 0, _UINT32_MAX) if layout > 1 else 0
        reader.literal("score quantiles", b"\xf6")
        reader.end("health report")
    except CborError as error:
        raise WireError(str(error)) from error
    return HealthReport(
        active_prefix,
        inferences,
        counts,
        low_confidence,
        out_of_bounds,
        fallbacks,
        disagreements,
        misses,
        p99,
        resets,
        rate,
        battery,
        arena,
    )


def split_health(report: HealthReport, *, report_id: int, part_bytes: int) -> list[bytes]:
    """Parts of at most part_bytes (4..36) each: 0x2<<4 | index, report id (0..255), count, piece. Raises WireError."""
    if not PART_HEADER_BYTES < part_bytes <= PART_BYTES_MAX:
        raise WireError(f"part size: {part_bytes} bytes, must be {PART_HEADER_BYTES + 1}..{PART_BYTES_MAX}")
    if not 0 <= report_id <= 255:
        raise WireError(f"report id: {report_id}, must be 0..255")
    data, room = report.encode(), part_bytes - PART_HEADER_BYTES
    pieces = [data[at : at + room] for at in range(0, len(data), room)]
    if len(pieces) > PARTS_MAX:
        raise WireError(f"part size: {part_bytes} bytes makes {len(pieces)} parts, must be at most {PARTS_MAX}")
    return [bytes([_HEALTH_KIND << 4 | i, report_id, len(pieces)]) + piece for i, piece in enumerate(pieces)]


class HealthAssembler:
    """Puts the parts of one node's reports together: lost, doubled and reordered parts are normal.

    Keeps at most `reports` unfinished reports (16 parts of 36 bytes each) and forgets the oldest.
    """

    def __init__(self, reports: int = 4) -> None:
        self._limit = reports
        self._open: OrderedDict[tuple[int, int], dict[int, bytes]] = OrderedDict()

    def add(self, part: bytes) -> HealthReport | None:
        """The report that this part completes, else None. Raises WireError; what is kept stays usable."""
        if not PART_HEADER_BYTES < len(part) <= PART_BYTES_MAX:
            raise WireError(f"health part: {len(part)} bytes, must be {PART_HEADER_BYTES + 1}..{PART_BYTES_MAX}")
        kind, index, report_id, count = part[0] >> 4, part[0] & 0x0F, part[1], part[2]
        if kind != _HEALTH_KIND:
            raise WireError(f"health part: kind {kind}, must be {_HEALTH_KIND}")
        if not index < count <= PARTS_MAX:
            raise WireError(f"health part: part {index} of {count}, at most {PARTS_MAX} are allowed")
        pieces = self._open.setdefault((report_id, count), {})
        if pieces.get(index, part) != part:
            pieces.clear()  # the id came round again: the parts of the older report are worthless
        pieces[index] = part
        while len(self._open) > self._limit:
            self._open.popitem(last=False)
        if len(pieces) < count:
            return None
        del self._open[report_id, count]
        return decode_health(b"".join(pieces[i][PART_HEADER_BYTES:] for i in range(count)))


def join_health(parts: Sequence[bytes]) -> HealthReport:
    """One report from all of its parts in any order. Raises WireError where parts are missing."""
    assembler = HealthAssembler(reports=1)
    for part in parts:
        report = assembler.add(part)
        if report is not None:
            return report
    raise WireError(f"health report: {len(parts)} parts do not complete a report")
