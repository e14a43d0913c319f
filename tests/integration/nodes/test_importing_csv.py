"""Nodes from CSV: every error by row and column, all rows or none, and an export goes back in."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices import node_csv
from devices.imports import check_import, import_nodes
from devices.models import Node, UnknownEndpoint
from fleet.audit.models import AuditEntry
from tests import factories
from updates.node_export import csv_lines

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
HEADER = "endpoint,link,profile,site,labels\n"


@pytest.fixture(autouse=True)
def profile(db: None) -> None:
    factories.make_profile(name="stm32l4")


def apply(text: str, *, update: bool = False) -> object:
    return import_nodes(data=text.encode(), update=update, actor="ann")


def places(text: str, *, update: bool = False) -> list[tuple[int, str, str]]:
    report = check_import(data=text.encode(), update=update)
    assert all(error.fix and error.message for error in report.errors)
    return [(error.row, error.column, error.value) for error in report.errors]


def test_rows_become_nodes_and_audit_entries() -> None:
    UnknownEndpoint.objects.create(link="nbiot", endpoint="press-1", first_seen_at=NOW, last_seen_at=NOW)

    report = apply(HEADER + 'press-1,nbiot,stm32l4,"plant, 3",line=7; tag=canary\nA1B2C3D4E5F60718,lorawan,stm32l4,,\n')

    first, second = Node.objects.order_by("id")
    assert (report.applied, report.created, report.rows) == (True, 2, 2)  # type: ignore[attr-defined]
    assert (first.endpoint, first.site, first.labels) == ("press-1", "plant, 3", {"line": "7", "tag": "canary"})
    assert (second.endpoint, second.link, second.site, second.labels) == ("a1b2c3d4e5f60718", "lorawan", "", {})
    assert not UnknownEndpoint.objects.exists()
    assert sorted(AuditEntry.objects.values_list("actor", "action")) == [
        ("ann", "node.registered"),
        ("ann", "node.registered"),
        ("ann", "nodes.imported"),
    ]


def test_every_error_is_said_with_row_column_and_value() -> None:
    factories.make_node(endpoint="known")
    text = HEADER + (
        "press-1,nbiot,stm32x,a,line\n"
        "press-2,pigeon,stm32l4,,\n"
        "a1b2,lorawan,stm32l4,,\n"
        "press-1,nbiot,stm32l4,,\n"
        "known,nbiot,stm32l4,,a=1;a=2\n"
        f"press 7,nbiot,,{'x' * 65},\n"
        "press-8,nbiot,stm32l4,a,b=1,more\n"
    )

    assert places(text) == [
        (2, "labels", "line"),
        (2, "profile", "stm32x"),
        (3, "link", "pigeon"),
        (4, "endpoint", "a1b2"),
        (5, "endpoint", "press-1"),
        (6, "labels", "a"),
        (6, "endpoint", "known"),
        (7, "endpoint", "press 7"),
        (7, "site", "x" * 65),
        (7, "profile", ""),
        (8, "", "more"),
    ]


def test_a_row_whose_endpoint_is_wrong_or_taken_is_told_all_else_that_is_wrong_too() -> None:
    text = HEADER + "press-1,nbiot,stm32l4,,\npress-1,nbiot,none,,\npress 2,nbiot,none,,\n,nbiot,stm32l4,,\n"

    assert places(text) == [
        (3, "endpoint", "press-1"),
        (3, "profile", "none"),
        (4, "endpoint", "press 2"),
        (4, "profile", "none"),
        (5, "endpoint", ""),
    ]
    assert check_import(data=text.encode(), update=False).errors[-1].message == "The empty cell is no endpoint name."


def test_time_zones_are_taken_and_wrong_ones_named() -> None:
    head = "endpoint,link,profile,time_zone\n"
    assert places(head + "press-1,nbiot,stm32l4,Mars/Olympus\n") == [(2, "time_zone", "Mars/Olympus")]
    apply(head + "press-1,nbiot,stm32l4,Europe/Berlin\npress-2,nbiot,stm32l4,\n")
    assert list(Node.objects.values_list("time_zone", flat=True)) == ["Europe/Berlin", ""]
    apply(head + "press-1,nbiot,stm32l4,Asia/Tokyo\n", update=True)
    assert Node.objects.first().time_zone == "Asia/Tokyo"  # type: ignore[union-attr]


def test_a_file_with_one_error_stores_nothing() -> None:
    report = apply(HEADER + "press-1,nbiot,stm32l4,,\npress-2,nbiot,unknown,,\n")

    assert not report.applied  # type: ignore[attr-defined]
    assert not Node.objects.exists()
    assert not AuditEntry.objects.exists()


def test_a_header_that_cannot_be_used_is_the_only_error() -> None:
    assert places("endpoint,colour,endpoint\nx,y,z\n") == [
        (1, "colour", "colour"),
        (1, "endpoint", "endpoint"),
        (1, "link", ""),
        (1, "profile", ""),
    ]
    assert places("") == [(1, "endpoint", ""), (1, "link", ""), (1, "profile", "")]


@pytest.mark.parametrize("text", ["\xff\xfe", HEADER + 'a,"b\n', HEADER + 'a,"b"c,d\n'])
def test_what_is_no_csv_is_an_error_with_a_row(text: str) -> None:
    report = check_import(data=text.encode("latin-1"), update=False)

    assert len(report.errors) == 1
    assert report.errors[0].row >= 1


@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: (HEADER + text).encode("utf-8", "ignore")))
def test_any_bytes_give_rows_or_a_csv_error(data: bytes) -> None:
    try:
        for number, cells in node_csv.read(data):
            assert number >= 1
            assert cells
    except node_csv.CsvError as error:
        assert error.row >= 1


def test_a_dry_run_says_what_an_update_would_change_and_changes_nothing() -> None:
    factories.make_node(endpoint="press-1", site="old", labels={"line": 7, "tag": "x"})
    text = HEADER + "press-1,nbiot,stm32l4,new,line=7\npress-2,nbiot,stm32l4,,\n"

    report = check_import(data=text.encode(), update=True)

    assert (report.created, report.updated, report.unchanged, report.applied) == (1, 1, 0, False)
    change = report.first_updated[0]
    assert change.before["site"] == "old"
    assert change.after["labels"] == {"line": "7"}
    assert Node.objects.get().site == "old"


def test_an_update_leaves_columns_alone_that_the_file_has_not() -> None:
    node = factories.make_node(endpoint="press-1", site="old", labels={"line": "7"}, slot_bytes=5000)

    report = apply("endpoint,link,profile,site\npress-1,nbiot,stm32l4,new\n", update=True)

    node.refresh_from_db()
    assert report.updated == 1  # type: ignore[attr-defined]
    assert (node.site, node.labels, node.slot_bytes, node.profile.name) == ("new", {"line": "7"}, 5000, "stm32l4")
    entry = AuditEntry.objects.get(action="node.changed")
    assert (entry.before["site"], entry.after["site"], entry.object_id) == ("old", "new", str(node.pk))


def test_a_node_keeps_its_link() -> None:
    factories.make_node(endpoint="a1b2c3d4e5f60718", link="lorawan")

    assert places(HEADER + "a1b2c3d4e5f60718,nbiot,stm32l4,,\n", update=True) == [(2, "link", "nbiot")]


def test_an_export_goes_back_in_and_changes_nothing() -> None:
    hostile = "=cmd|' /C calc'!A0"
    version = factories.make_version()
    factories.make_node(
        endpoint="=press-1", site=hostile, labels={"a": " x; y=\\ ", "n": "'=1", "line": 7}, sram_bytes=9
    )
    factories.make_node(
        seen_at=NOW, active_digest=version.images.get().digest, firmware_build=factories.make_firmware()
    )
    factories.make_node(endpoint="a1b2c3d4e5f60718", link="lorawan", site="'quoted", labels={"b": "line\nbreak"})
    text = "".join(csv_lines(Node.objects.all()))
    before = list(Node.objects.order_by("id").values())

    report = apply(text, update=True)

    assert (report.rows, report.unchanged, report.errors) == (3, 3, [])  # type: ignore[attr-defined]
    assert list(Node.objects.order_by("id").values()) == before


def test_an_export_makes_the_same_nodes_in_an_empty_fleet() -> None:
    factories.make_node(endpoint="+press", site="@here", labels={"a": "-1"}, profile=factories.make_profile(name="p"))
    text = "".join(csv_lines(Node.objects.all()))
    Node.objects.all().delete()

    apply(text)

    node = Node.objects.get()
    assert (node.endpoint, node.site, node.labels, node.profile.name) == ("+press", "@here", {"a": "-1"}, "p")


@given(st.text(max_size=20))
def test_no_exported_cell_begins_like_a_formula_and_each_is_read_back(cell: str) -> None:
    guarded = node_csv.guarded(cell)

    assert not guarded.startswith(("=", "+", "-", "@", "\t", "\r"))
    assert node_csv.unguarded(guarded) == cell


def test_the_template_can_be_imported() -> None:
    apply(node_csv.template())

    assert Node.objects.get().labels == {"line": "7", "tag": "canary"}


def test_ten_thousand_rows_take_seconds() -> None:
    rows = [f"press-{number:05},nbiot,stm32l4,plant-{number % 9},line={number % 7}; tag=x" for number in range(10_000)]
    text = HEADER + "\n".join(rows)
    began = time.monotonic()
    apply(text)
    created = time.monotonic() - began

    began = time.monotonic()
    report = apply(text.replace("tag=x", "tag=y"), update=True)
    updated = time.monotonic() - began

    print(f"10,000 rows created in {created:.1f} s, updated in {updated:.1f} s")
    assert report.updated == 10_000  # type: ignore[attr-defined]
    assert Node.objects.filter(labels__tag="y").count() == 10_000
    assert created < 20
    assert updated < 20
