from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.wire import HealthAssembler, HealthReport, WireError, decode_health, decode_state, join_health

VECTORS = json.loads((Path(__file__).parents[3] / "docs/vectors/reports.json").read_text())


@pytest.mark.parametrize("case", VECTORS["states"], ids=lambda case: case["state"])
def test_published_state_reports_decode_and_encode_back(case: dict[str, str]) -> None:
    report = decode_state(bytes.fromhex(case["bytes"]))
    assert (report.state.name.lower(), report.cause.label) == (case["state"], case["cause"])
    assert report.encode().hex() == case["bytes"]


@pytest.mark.parametrize("kind", ["health", "health_with_arena"])
@pytest.mark.parametrize("size", ["parts_36", "parts_11"])
def test_published_health_parts_join_in_any_order(kind: str, size: str) -> None:
    report = join_health([bytes.fromhex(part) for part in reversed(VECTORS[kind][size])])
    assert report.encode().hex() == VECTORS[kind]["bytes"]
    assert report.arena_used_bytes == VECTORS[kind]["fields"].get("arena_used_bytes", 0)


def test_a_layout_with_another_layouts_length_is_refused() -> None:
    old, new = (bytes.fromhex(VECTORS[kind]["bytes"]) for kind in ("health", "health_with_arena"))
    for data in (old[:1] + b"\x02" + old[2:], new[:1] + b"\x01" + new[2:], new[:1] + b"\x03" + new[2:]):
        with pytest.raises(WireError):
            decode_health(data)


@given(st.binary(max_size=60))
def test_garbage_raises_only_a_wire_error(data: bytes) -> None:
    for decode in (decode_state, decode_health, HealthAssembler().add):
        try:
            decode(data)
        except WireError:
            continue


@given(st.lists(st.integers(0, 2**32 - 1), max_size=32), st.integers(-(2**31), 2**31 - 1), st.integers(0, 2**32 - 1))
def test_a_health_report_survives_the_round_trip(counts: list[int], rate: int, arena: int) -> None:
    report = HealthReport(b"abcd", 9, tuple(counts), 1, 2, 3, 4, 5, 6, 7, rate, 3000, arena)
    assert decode_health(report.encode()) == report
