"""The shipped C code writes health reports as the published vectors say, and as the server reads them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.devices import agent_bench  # noqa: F401  (compiles the agent)

from devices.agent.native import encode_health, health_parts  # isort: skip
from devices.simulator.health import Counters  # isort: skip
from devices.wire import HealthReport, decode_health, join_health  # isort: skip

VECTORS = json.loads((Path(__file__).parents[3] / "docs/vectors/reports.json").read_text())
UINT32 = st.one_of(st.sampled_from([0, 23, 24, 255, 256, 65535, 65536, 2**32 - 1]), st.integers(0, 2**32 - 1))


@pytest.mark.parametrize("kind", ["health", "health_with_arena"])
def test_both_layouts_and_their_parts_are_those_of_the_vectors(kind: str) -> None:
    case = VECTORS[kind]
    fields: dict[str, Any] = case["fields"] | {"active_prefix": bytes.fromhex(case["fields"]["active_prefix"])}

    report = encode_health(**fields)

    assert report.hex() == case["bytes"]
    for size, report_id in ((36, 5), (11, 6)):
        parts = health_parts(report, report_id=report_id, part_bytes=size)
        assert [part.hex() for part in parts] == case[f"parts_{size}"]


@given(
    st.binary(min_size=4, max_size=4),
    st.lists(UINT32, max_size=32),
    st.lists(UINT32, min_size=9, max_size=9),
    st.one_of(st.sampled_from([-(2**31), -257, -256, -25, -24, -1, 2**31 - 1]), st.integers(-(2**31), 2**31 - 1)),
    st.integers(0, 65535),
)
def test_what_the_node_writes_the_server_reads_and_would_write_alike(
    prefix: bytes, classes: list[int], numbers: list[int], rate: int, battery: int
) -> None:
    names = (
        *("inferences", "low_confidence", "out_of_bounds", "fallbacks", "shadow_disagreements", "deadline_misses"),
        *("p99_latency_us", "resets", "arena_used_bytes"),
    )
    more = {"sample_rate_error_ppm": rate, "battery_mv": battery}
    values = dict(zip(names, numbers, strict=True)) | more

    data = encode_health(active_prefix=prefix, class_counts=classes, **values)

    read = decode_health(data)
    assert read == HealthReport(active_prefix=prefix, class_counts=tuple(classes), **values)
    assert read.encode() == data
    assert join_health(list(health_parts(data, report_id=9, part_bytes=36))) == read


def test_more_than_sixteen_parts_are_none() -> None:
    report = encode_health(active_prefix=bytes(4), class_counts=[2**32 - 1] * 32, inferences=1)

    assert len(report) > 16 * 8
    assert list(health_parts(report, report_id=0, part_bytes=11)) == []
    assert list(health_parts(report, report_id=0, part_bytes=3)) == []
    assert len(list(health_parts(report, report_id=0, part_bytes=15))) == 15


@given(st.integers(0, 2**32 - 1))
def test_what_a_simulated_node_counted_is_what_the_server_reads(arena: int) -> None:
    counters = Counters("aabbccdd" + 28 * "00", inferences=70, class_counts=[40, 30], deadline_misses=2)
    data = counters.encode(resets=1, p99_us=9_500, rate_error_ppm=-20, battery_mv=3_600, arena_bytes=arena)
    report = decode_health(data)
    assert (report.active_prefix.hex(), report.class_counts, report.deadline_misses) == ("aabbccdd", (40, 30), 2)
    assert (report.p99_latency_us, report.battery_mv, report.arena_used_bytes) == (9_500, 3_600, arena)
