"""Nodes from CSV: everything wrong is said at once, and then all rows are stored or none."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from django.db import IntegrityError, transaction

from devices import node_csv
from devices.labels import LabelError, check_site, label_text, parse_labels
from devices.models import (
    DEV_EUI,
    FirmwareBuild,
    HardwareProfile,
    LinkKind,
    Node,
    UnknownEndpoint,
    available_time_zones,
)
from fleet.audit.models import record, record_many

EXAMPLES = 10
_ENDPOINT = re.compile(r"[!-~]{1,64}")
_SIZES = ("slot_bytes", "sram_bytes", "reserved_sram_bytes")
_MOST_BYTES = 2**31 - 1


@dataclass(frozen=True)
class RowError:
    """`row` counts the header as 1; `column` is empty where the row as a whole is meant."""

    row: int
    column: str
    value: str
    message: str
    fix: str


@dataclass(frozen=True)
class Change:
    """What a row does to a node that is registered: the fields that differ."""

    endpoint: str
    before: dict[str, Any]
    after: dict[str, Any]


@dataclass
class Report:
    """What a file holds and would do, or did. With errors, nothing is done."""

    rows: int = 0
    created: int = 0
    updated: int = 0
    unchanged: int = 0
    applied: bool = False
    errors: list[RowError] = field(default_factory=list)
    first_created: list[str] = field(default_factory=list)
    first_updated: list[Change] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{len(self.errors)} cells or rows are wrong, so nothing is stored."

    def counts(self) -> dict[str, int]:
        return {name: getattr(self, name) for name in ("rows", "created", "updated", "unchanged")}


@dataclass(frozen=True)
class _Row:
    """`endpoint` is empty where the row has none that can be used: its other cells are judged all the same."""

    number: int
    endpoint: str
    values: dict[str, Any]


def check_import(*, data: bytes, update: bool) -> Report:
    """What importing would do. Without `update`, an endpoint that is registered is an error."""
    report, _, _ = _plan(data, update, lock=False)
    return report


@transaction.atomic
def import_nodes(*, data: bytes, update: bool, actor: str) -> Report:
    """Stores all rows, or none where the report has errors. About five statements a thousand rows."""
    report, fresh, changed = _plan(data, update, lock=True)
    if report.errors:
        return report
    try:
        with transaction.atomic():
            Node.objects.bulk_create(fresh, batch_size=1000)
    except IntegrityError:
        # Somebody registered one of them since it was looked for: now it is known.
        return import_nodes(data=data, update=update, actor=actor)
    UnknownEndpoint.objects.filter(endpoint__in=[node.endpoint for node in fresh]).delete()
    if changed:
        Node.objects.bulk_create(
            [node for node, _, _ in changed],
            batch_size=1000,
            update_conflicts=True,
            unique_fields=["id"],
            update_fields=["profile", "firmware_build", "site", "labels", "time_zone", *_SIZES],
        )
    record(actor=actor, action="nodes.imported", subject=Node(), after=report.counts())
    registered = ((node, None, {"endpoint": node.endpoint}) for node in fresh)
    record_many(actor=actor, action="node.registered", changes=registered)
    record_many(actor=actor, action="node.changed", changes=changed)
    report.applied = True
    return report


def _plan(
    data: bytes, update: bool, *, lock: bool
) -> tuple[Report, list[Node], list[tuple[Node, dict[str, Any], dict[str, Any]]]]:
    report = Report()
    rows = _rows(data, report)
    usable = [row.endpoint for row in rows if row.endpoint]
    known = {node.endpoint: node for node in _known(usable, lock)}
    profiles = {profile.name: profile for profile in HardwareProfile.objects.all()}
    builds = {build.name: build for build in FirmwareBuild.objects.all()}
    fresh: list[Node] = []
    changed: list[tuple[Node, dict[str, Any], dict[str, Any]]] = []
    for row in rows:
        _resolve(row, report, "profile", profiles, "profiles")
        _resolve(row, report, "firmware_build", builds, "firmware-builds")
        if not row.endpoint:
            continue
        node = known.get(row.endpoint)
        if node is None:
            fresh.append(Node(**row.values))
            continue
        if not update:
            fix = "Leave the row out, or choose to update nodes that are registered."
            _wrong(report, row.number, "endpoint", node.endpoint, "is registered already", fix)
        if row.values.get("link", node.link) != node.link:
            fix = f"Write {node.link}: a node keeps its link."
            _wrong(report, row.number, "link", row.values["link"], "is not the link of the registered node", fix)
        before, after = _differences(node, row.values)
        if after:
            for name in after:
                setattr(node, name, row.values[name])
            changed.append((node, before, after))
    report.errors.sort(key=lambda error: error.row)
    report.created, report.updated = len(fresh), len(changed)
    report.unchanged = len(usable) - len(fresh) - len(changed)
    report.first_created = [node.endpoint for node in fresh[:EXAMPLES]]
    report.first_updated = [Change(node.endpoint, before, after) for node, before, after in changed[:EXAMPLES]]
    return report, fresh, changed


def _known(endpoints: list[str], lock: bool) -> Iterable[Node]:
    rows = Node.objects.filter(endpoint__in=endpoints).select_related("profile", "firmware_build").order_by("pk")
    return rows.select_for_update(of=("self",), no_key=True) if lock else rows


def _rows(data: bytes, report: Report) -> list[_Row]:
    """All rows with the values that can be read; what is wrong goes to the report."""
    rows: list[_Row] = []
    first_seen: dict[str, int] = {}
    try:
        lines = node_csv.read(data)
        number, header = next(lines, (1, []))
        names = _header(number, header, report)
        if names is None:
            return []
        for number, cells in lines:
            report.rows += 1
            if len(cells) > len(names) and any(cells[len(names) :]):
                extra = ", ".join(cells[len(names) :])
                fix = "Put cells that hold a comma in double quotes."
                _wrong(report, number, "", extra, f"has {len(cells)} cells, the header {len(names)}", fix)
                continue
            given = dict(zip(names, [*cells, *[""] * (len(names) - len(cells))], strict=False))
            values = _values(number, given, report)
            endpoint = values.get("endpoint", "")
            if endpoint in first_seen:
                fix = "Leave one of the two rows out."
                _wrong(report, number, "endpoint", endpoint, f"is in row {first_seen[endpoint]} already", fix)
                endpoint = ""
            elif endpoint:
                first_seen[endpoint] = number
            rows.append(_Row(number, endpoint, values))
    except node_csv.CsvError as error:
        _wrong(report, error.row, "", "", error.message, f"{error.fix[0].upper()}{error.fix[1:]}.", whole=True)
    return rows


def _header(number: int, header: list[str], report: Report) -> list[str] | None:
    """Names of the columns; None where the header cannot be used."""
    names = [cell.strip().lower() for cell in header]
    known = {column.name for column in node_csv.COLUMNS}
    before = len(report.errors)
    for name, cell in zip(names, header, strict=True):
        if name not in known:
            fix = f"Take it out, or use one of {', '.join(node_csv.WRITABLE)}."
            _wrong(report, number, cell, cell, "is no column of nodes", fix)
    for name in sorted({name for name in names if names.count(name) > 1}):
        _wrong(report, number, name, name, "is there twice", "Leave one of the two columns out.")
    for name in node_csv.REQUIRED:
        if name not in names:
            _wrong(
                report, number, name, "", "The column is missing", "Add it; the template has every column.", whole=True
            )
    return names if len(report.errors) == before else None


def _values(number: int, given: dict[str, str], report: Report) -> dict[str, Any]:
    """Fields of a node; those that are wrong are left out and reported. Columns that are read only say nothing."""
    values: dict[str, Any] = {}
    link = given["link"].strip().lower()
    if link in LinkKind.values:
        values["link"] = link
    else:
        _wrong(report, number, "link", given["link"], "is no link", f"Write {' or '.join(LinkKind.values)}.")
    endpoint = given["endpoint"].strip()
    if link == LinkKind.LORAWAN:
        endpoint = endpoint.lower()
        if not DEV_EUI.fullmatch(endpoint):
            fix = "Write its 16 hex digits, without separators."
            _wrong(report, number, "endpoint", given["endpoint"], "is no DevEUI", fix)
        else:
            values["endpoint"] = endpoint
    elif _ENDPOINT.fullmatch(endpoint):
        values["endpoint"] = endpoint
    else:
        fix = "Write 1 to 64 printable ASCII signs without spaces."
        _wrong(report, number, "endpoint", given["endpoint"], "is no endpoint name", fix)
    for name in ("profile", "firmware_build"):
        if name in given:
            values[name] = given[name].strip()
    readers: dict[str, Callable[[str], Any]] = {"labels": parse_labels, "site": _site}
    for name, reader in readers.items():
        if name in given:
            try:
                values[name] = reader(given[name])
            except LabelError as error:
                _wrong(
                    report,
                    number,
                    name,
                    error.value,
                    error.message,
                    f"{error.fix[0].upper()}{error.fix[1:]}.",
                    whole=True,
                )
    if (zone := given.get("time_zone", "").strip()) and zone not in available_time_zones():
        fix = "Write a name of the IANA database, such as Europe/Berlin."
        _wrong(report, number, "time_zone", zone, "is no time zone", fix)
    elif "time_zone" in given:
        values["time_zone"] = zone
    for name in _SIZES:
        if name in given:
            text = given[name].strip()
            if text and not (re.fullmatch("[0-9]{1,10}", text) and int(text) <= _MOST_BYTES):
                fix = f"Write whole bytes up to {_MOST_BYTES}, or leave it empty for the profile's."
                _wrong(report, number, name, given[name], "is no number of bytes", fix)
            else:
                values[name] = int(text) if text else None
    return values


def _site(text: str) -> str:
    check_site(text)
    return text


def _resolve(row: _Row, report: Report, name: str, known: dict[str, Any], where: str) -> None:
    wanted = row.values.get(name)
    if wanted is None:
        return
    if wanted in known:
        row.values[name] = known[wanted]
        return
    row.values[name] = None
    if wanted or name in node_csv.REQUIRED:
        some = ", ".join(sorted(known)[:5]) or "none yet"
        _wrong(
            report,
            row.number,
            name,
            wanted,
            "is unknown",
            f"Known here: {some}. Describe it first under Hardware, or by POST /{where}.",
        )


def _differences(node: Node, values: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The fields that differ, before and after, as the audit log keeps them."""
    before: dict[str, Any] = {}
    after: dict[str, Any] = {}
    for name, value in values.items():
        old = getattr(node, name)
        plain = {key: label_text(one) for key, one in old.items()} if name == "labels" else old
        if plain != value:
            before[name], after[name] = _plain(old), _plain(value)
    return before, after


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, HardwareProfile | FirmwareBuild) else value


def _wrong(report: Report, row: int, column: str, value: str, message: str, fix: str, *, whole: bool = False) -> None:
    shown = value if len(value) <= 80 else f"{value[:80]}…"
    words = message if whole else f"{repr(shown) if value else 'the empty cell'} {message}"
    report.errors.append(RowError(row, column, shown, f"{words[:1].upper()}{words[1:]}.", fix))
