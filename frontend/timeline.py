"""What happened to a node, newest first: what its link saw, what campaigns decided, what people changed."""

from __future__ import annotations

import heapq
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import islice
from typing import Any

from devices.labels import format_labels
from devices.models import LinkEvent, LinkEventKind, Node
from devices.wire import WireError, decode_state, is_health_part
from fleet.audit.models import AuditEntry
from updates import causes
from updates import selectors as updates
from updates.models import UpdateEvent

PAGE = 30
KINDS = {"link": "Link", "update": "Campaigns", "people": "People"}


@dataclass(frozen=True)
class Moment:
    """A line of a timeline. `look` names a state of a node update, `link` or `people`; `source` is a key of KINDS.

    `times`: how often it happened in a row; `at` and `id` are those of the newest.
    """

    at: datetime
    source: str
    id: int
    look: str
    title: str
    detail: str
    campaign_id: int | None = None
    times: int = 1


@dataclass(frozen=True)
class TimelinePage:
    """`before` is the cursor of the page that follows; empty at the end."""

    moments: list[Moment]
    kind: str
    before: str


def read_cursor(text: str) -> dict[str, int]:
    """Of each source the id below which the page begins. Raises ValueError."""
    found = dict(re.findall(r"([a-z]+)\.([0-9]{1,18})", text))
    if "-".join(f"{source}.{key}" for source, key in found.items()) != text or not set(found) <= set(KINDS):
        raise ValueError(text)
    return {source: int(key) for source, key in found.items()}


def timeline(
    node: Node, *, kind: str = "", before: dict[str, int] | None = None, people: bool, limit: int = PAGE
) -> TimelinePage:
    """One page of the sources merged by time: of one kind, or of all. `people`: whether the reader may see the audit log.

    Each source is read in the order of its own ids, so that every row is on exactly one page, however late it came.
    """
    below = dict(before or {})
    readers = {"link": _seen, "update": _decided, "people": _changed}
    sources = [one for one in readers if kind in ("", one) and (people or one != "people")]
    streams = [readers[one](node, below.get(one), limit + 1) for one in sources]
    merged = list(islice(heapq.merge(*streams, key=lambda moment: moment.at, reverse=True), limit + 1))
    shown = merged[:limit]
    for moment in shown:
        below[moment.source] = moment.id
    cursor = "-".join(f"{source}.{key}" for source, key in below.items())
    return TimelinePage(_in_rows(shown), kind, cursor if len(merged) > limit else "")


def _in_rows(moments: Sequence[Moment]) -> list[Moment]:
    """The same thing over and over is one line: reports of health come by the part."""
    rows: list[Moment] = []
    for moment in moments:
        last = rows[-1] if rows else None
        if last and (last.source, last.title, last.detail) == (moment.source, moment.title, moment.detail):
            rows[-1] = replace(last, times=last.times + 1)
        else:
            rows.append(moment)
    return rows


def _seen(node: Node, below: int | None, limit: int) -> list[Moment]:
    """Progress is left out: it would drown the rest."""
    rows = LinkEvent.objects.filter(node=node).exclude(kind=LinkEventKind.PROGRESS).order_by("-id")
    return [_link_moment(event) for event in (rows.filter(id__lt=below) if below is not None else rows)[:limit]]


def _decided(node: Node, below: int | None, limit: int) -> list[Moment]:
    return [_update_moment(event) for event in updates.events_of_node(node.pk, before=below, limit=limit)]


def _changed(node: Node, below: int | None, limit: int) -> list[Moment]:
    rows = AuditEntry.objects.filter(object_type=Node._meta.label_lower, object_id=str(node.pk)).order_by("-id")
    return [_audit_moment(entry) for entry in (rows.filter(id__lt=below) if below is not None else rows)[:limit]]


def _update_moment(event: UpdateEvent) -> Moment:
    title = f"{event.campaign.name}: {event.to_state}"
    detail = causes.sentence(event.cause) if event.cause else ""
    return Moment(event.at, "update", event.pk, event.to_state, title, detail, event.campaign_id)


def _audit_moment(entry: AuditEntry) -> Moment:
    words = entry.action.split(".")[-1].replace("_", " ").capitalize()
    before, after = entry.before or {}, entry.after or {}
    changes = [
        f"{name}: {_value(before.get(name))} → {_value(after.get(name))}"
        if name in before
        else f"{name}: {_value(value)}"
        for name, value in after.items()
        if before.get(name) != value
    ]
    return Moment(entry.at, "people", entry.pk, "people", f"{words} by {entry.actor}", "; ".join(changes))


def _value(value: Any) -> str:
    return (format_labels(value) if isinstance(value, dict) else "" if value is None else str(value)) or "none"


def _link_moment(event: LinkEvent) -> Moment:
    detail = causes.sentence(event.cause) if event.cause else ""
    if event.kind == LinkEventKind.REPORT:
        return Moment(event.at, "link", event.pk, "link", "Node reported", _report_words(bytes(event.payload or b"")))
    if event.kind == LinkEventKind.HOLDS:
        return Moment(event.at, "link", event.pk, "link", "Node said what it runs", event.digest[:8] or "nothing")
    titles = {"offered": "Bundle offered", "delivered": "Bundle delivered", "failed": "Delivery failed"}
    return Moment(event.at, "link", event.pk, "link", titles.get(event.kind, event.kind), detail)


def _report_words(payload: bytes) -> str:
    if is_health_part(payload):
        return "a part of a health report"
    try:
        report = decode_state(payload)
    except WireError as error:
        return f"unreadable: {error}"
    cause = "" if report.cause == 0 else f" {causes.sentence(report.cause.label)}"
    return f"State {report.state.name.lower()}, runs {report.active_prefix.hex()}.{cause}"
