"""What a LwM2M Send carries: a SenML pack in CBOR (RFC 8428 6, content format 112) with node reports."""

from __future__ import annotations

from dataclasses import dataclass

import cbor2

from devices.wire import PART_BYTES_MAX, PART_HEADER_BYTES, NodeState, WireError, decode_state, is_health_part

PACK_BYTES_MAX = 4096
RECORDS_MAX = 64
_BASE_NAME, _NAME, _DATA_VALUE = -2, 0, 8
_STATE_NAME, _HEALTH_NAME = "/26241/0/2", "/26241/0/5"


class BadPack(ValueError):
    """The pack breaks SenML or the wire contract; the message names the record."""


@dataclass(frozen=True)
class Report:
    payload: bytes
    confirmed: bool  # a state report that says `confirmed`


def state_report(payload: bytes) -> Report:
    """Raises BadPack."""
    try:
        return Report(payload, decode_state(payload).state is NodeState.CONFIRMED)
    except WireError as error:
        raise BadPack(str(error)) from error


def parse_reports(pack: bytes) -> list[Report]:
    """All reports of a pack, or none: one bad record refuses it; other resources are passed over. Raises BadPack."""
    if len(pack) > PACK_BYTES_MAX:
        raise BadPack(f"pack: {len(pack)} bytes, must be at most {PACK_BYTES_MAX}")
    try:
        records = cbor2.loads(pack)
    except Exception as error:  # whatever the decoder trips over, the bytes are at fault
        raise BadPack(f"pack: not CBOR ({type(error).__name__})") from error
    if not isinstance(records, list) or len(records) > RECORDS_MAX:
        raise BadPack(f"pack: must be an array of at most {RECORDS_MAX} records")
    reports, base = [], ""
    for position, record in enumerate(records):
        if not isinstance(record, dict):
            raise BadPack(f"record {position}: must be a map")
        base, name = record.get(_BASE_NAME, base), record.get(_NAME, "")
        if not (isinstance(base, str) and isinstance(name, str)):
            raise BadPack(f"record {position}: names must be text")
        if base + name not in (_STATE_NAME, _HEALTH_NAME):
            continue
        value = record.get(_DATA_VALUE)
        if not isinstance(value, bytes):
            raise BadPack(f"record {position}: vd must be a byte string")
        if base + name == _STATE_NAME:
            reports.append(state_report(value))
        elif is_health_part(value) and PART_HEADER_BYTES < len(value) <= PART_BYTES_MAX:
            reports.append(Report(value, confirmed=False))
        else:
            raise BadPack(f"record {position}: not a part of a health report")
    return reports
