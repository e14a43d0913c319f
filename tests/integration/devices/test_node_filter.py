from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from devices.models import FirmwareBuild, HardwareProfile, Node, NodePresence
from devices.query import QueryError
from updates.node_filter import nodes_matching, version_key

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


@pytest.fixture
def nodes(db: None) -> None:
    sizes = {"slot_bytes": 1000, "sram_bytes": 2000, "reserved_sram_bytes": 100}
    small = HardwareProfile.objects.create(name="stm32l4", **sizes)
    large = HardwareProfile.objects.create(name="stm32u5", **sizes)
    firmware = FirmwareBuild.objects.create(name="fw-1", io_hash="00000000")
    a = Node.objects.create(
        endpoint="abc-1", link="nbiot", profile=small, site="plant-3", labels={"line": "7"}, firmware_build=firmware
    )
    b = Node.objects.create(
        endpoint="abc-2", link="nbiot", profile=large, site="plant 4", labels={"line": 7, "tag": "canary"}
    )
    Node.objects.create(endpoint="xyz", link="lorawan", profile=small, labels={"a.b*c": "x__y"})
    NodePresence.objects.create(node=a, last_seen_at=NOW - timedelta(hours=1))
    NodePresence.objects.create(node=b, last_seen_at=NOW - timedelta(days=3))


def matching(text: str) -> str:
    return " ".join(nodes_matching(text, now=NOW).values_list("endpoint", flat=True))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "abc-1 abc-2 xyz"),
        ("profile:stm32l4 site:plant-3 label.line=7 seen<24h not label.tag=canary", "abc-1"),
        ("endpoint:abc*", "abc-1 abc-2"),
        ("endpoint:*c-*", "abc-1 abc-2"),
        ('site:"plant 4"', "abc-2"),
        ("link:lorawan or site:plant-3", "abc-1 xyz"),
        ("link:nbiot and (profile:stm32u5 or seen:never)", "abc-2"),
        ("firmware:fw-1", "abc-1"),
        ("not firmware:fw-1", "abc-2 xyz"),
        ("firmware!=fw-1", "abc-2 xyz"),
        ("seen>24h", "abc-2 xyz"),
        ("not seen<24h", "abc-2 xyz"),
        ("seen:never", "xyz"),
        ("label.line:7", "abc-1 abc-2"),
        ("label.tag:*", "abc-2"),
        ("not label.tag:can*", "abc-1 xyz"),
        ("endpoint:.*", ""),
        ("version:1.0", ""),
        ("not version<9", "abc-1 abc-2 xyz"),
        ("model!=imu", "abc-1 abc-2 xyz"),
    ],
)
def test_a_filter_finds_its_nodes(nodes: None, text: str, expected: str) -> None:
    assert matching(text) == expected


@pytest.mark.parametrize(
    ("text", "position"),
    [
        ("colour:red", 0),
        ("site<3", 4),
        ("seen<tomorrow", 5),
        ("seen:1h", 5),
        ("link:carrier-pigeon", 5),
        ("version<new", 8),
    ],
)
def test_a_term_without_meaning_points_at_its_position(db: None, text: str, position: int) -> None:
    with pytest.raises(QueryError) as error:
        matching(text)
    assert error.value.position == position


fields = st.sampled_from(["site", "endpoint", "label.x", "label.a__b", "seen", "version", "model", "link", "profile"])
terms = st.tuples(fields, st.sampled_from([":", "=", "!=", "<", ">="]), st.text(max_size=12)).map("".join)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(terms | st.text(max_size=8), max_size=4).map(" ".join))
def test_garbage_reaches_the_database_only_as_something_that_it_can_answer(nodes: None, text: str) -> None:
    try:
        matching(text)
    except QueryError as error:
        assert 0 <= error.position <= len(text)


def test_versions_are_ordered_by_their_numbers() -> None:
    names = ["1.4-rc1", "1.10", "1.4", "1.9", "alpha", "1.4.1"]
    assert sorted(names, key=version_key) == ["alpha", "1.4-rc1", "1.4", "1.4.1", "1.9", "1.10"]
    assert version_key("1.4") == version_key("1.4.0")
