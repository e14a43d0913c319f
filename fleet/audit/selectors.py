"""Reading the audit log: newest first, by keyset, never counted."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from django.db.models import Q, QuerySet, TextField
from django.db.models.functions import Cast

from fleet.audit.models import AuditEntry

COLUMNS = ("id", "at", "actor", "action", "object_type", "object_id", "object_name", "before", "after")
CHUNK = 1000


@dataclass(frozen=True)
class AuditFilter:
    """actor: whole, or the part before a token's name. action: whole, or its first word with a full stop.

    subject: a kind such as devices.node, with /id for one object. since is included, until is not. text: anywhere.
    """

    actor: str = ""
    action: str = ""
    subject: str = ""
    since: datetime | None = None
    until: datetime | None = None
    text: str = ""


def entries(wanted: AuditFilter) -> QuerySet[AuditEntry]:
    rows = AuditEntry.objects.order_by("-pk")
    if wanted.actor:
        rows = rows.filter(Q(actor=wanted.actor) | Q(actor__startswith=f"{wanted.actor} ("))
    if wanted.action:
        by_word = wanted.action.endswith(".")
        rows = rows.filter(action__startswith=wanted.action) if by_word else rows.filter(action=wanted.action)
    if wanted.subject:
        kind, _, number = wanted.subject.partition("/")
        rows = rows.filter(object_type=kind)
        rows = rows.filter(object_id=number) if number else rows
    if wanted.since:
        rows = rows.filter(at__gte=wanted.since)
    if wanted.until:
        rows = rows.filter(at__lt=wanted.until)
    if wanted.text:
        rows = rows.alias(was=Cast("before", TextField()), became=Cast("after", TextField())).filter(
            Q(object_name__icontains=wanted.text) | Q(was__icontains=wanted.text) | Q(became__icontains=wanted.text)
        )
    return rows


def page(wanted: AuditFilter, *, before: int | None, limit: int) -> list[AuditEntry]:
    rows = entries(wanted)
    return list((rows.filter(pk__lt=before) if before else rows)[:limit])


def _all(wanted: AuditFilter) -> Iterator[AuditEntry]:
    """In pieces, each a query of its own: an export holds no transaction open while a slow client reads."""
    before: int | None = None
    while rows := page(wanted, before=before, limit=CHUNK):
        yield from rows
        before = rows[-1].pk


def as_json_lines(wanted: AuditFilter) -> Iterator[str]:
    for entry in _all(wanted):
        yield json.dumps({name: getattr(entry, name) for name in COLUMNS} | {"at": entry.at.isoformat()}) + "\n"


class _Echo:
    """A file that hands back what is written, so that csv can feed a stream."""

    def write(self, text: str) -> str:
        return text


def _inert(value: object) -> object:
    """A spreadsheet takes a cell that begins with one of these as a formula."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value


def as_csv(wanted: AuditFilter) -> Iterator[str]:
    writer = csv.writer(_Echo())
    yield writer.writerow(COLUMNS)
    for entry in _all(wanted):
        values = {name: getattr(entry, name) for name in COLUMNS} | {
            "at": entry.at.isoformat(),
            "before": "" if entry.before is None else json.dumps(entry.before),
            "after": "" if entry.after is None else json.dumps(entry.after),
        }
        yield writer.writerow([_inert(values[name]) for name in COLUMNS])


@dataclass(frozen=True)
class Change:
    """One value before and after, as text; empty where there was none."""

    name: str
    before: str
    after: str
    differs: bool


def changes(entry: AuditEntry) -> list[Change]:
    before, after = entry.before or {}, entry.after or {}
    names = list(dict.fromkeys([*before, *after]))
    return [
        Change(
            name,
            _text(before[name]) if name in before else "",
            _text(after[name]) if name in after else "",
            name in before and name in after and before[name] != after[name],
        )
        for name in names
    ]


def _text(value: object) -> str:
    if isinstance(value, str):
        return value or "empty"
    if value is None or isinstance(value, bool):
        return {None: "none", True: "yes", False: "no"}[value]
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return ", ".join(value) or "none"
    return str(value) if isinstance(value, int | float) else json.dumps(value, sort_keys=True)
