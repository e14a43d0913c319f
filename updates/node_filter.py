"""The filter language with what updates knows: which model version a node runs."""

from __future__ import annotations

import operator
import re
from dataclasses import dataclass
from datetime import datetime

from django.db.models import Q, QuerySet

from devices.models import Node
from devices.query import QueryError, Term, compile_query
from devices.query.fields import equality, pattern
from updates.models import ModelImage


@dataclass(frozen=True)
class FieldHelp:
    name: str
    example: str
    meaning: str


FIELDS = [
    FieldHelp("endpoint", "endpoint:press-*", "LwM2M endpoint name or DevEUI; a star stands for any signs"),
    FieldHelp("profile", "profile:stm32l4", "hardware profile"),
    FieldHelp("firmware", "firmware:fw-2.1", "firmware build that the node reported"),
    FieldHelp("link", "link:lorawan", "lorawan or nbiot"),
    FieldHelp("site", 'site:"plant 3"', "where it stands; double quotes keep spaces"),
    FieldHelp("label.<key>", "label.line=7", "a label; label.line:* has it, not label.line:* has it not"),
    FieldHelp("model", "model:gesture", "model family that it runs"),
    FieldHelp("version", "version<1.4", "version that it runs, in the order of its numbers"),
    FieldHelp("seen", "seen<24h", "last sign of life: younger than 24 h; seen>7d, seen:never"),
    FieldHelp("battery", "battery<20", "last reported level in percent"),
    FieldHelp("and, or, not, ( )", "not (site:a or site:b)", "terms side by side must all hold"),
]

_ORDER = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}


def nodes_matching(text: str, *, now: datetime) -> QuerySet[Node]:
    """Nodes for which the filter holds, in order of id; every node for an empty one. Raises QueryError."""
    condition = compile_query(text, now=now, extra={"version": _version, "model": _model})
    return Node.objects.filter(condition).order_by("id")


def version_key(name: str) -> tuple[tuple[int, ...], bool, str]:
    """Order of version names: numbers first, so that 1.9 < 1.10; then 1.4-rc1 < 1.4; 1.4 and 1.4.0 are equal."""
    found = re.match(r"[0-9]+(\.[0-9]+)*", name)
    numbers = [int(part) for part in found[0].split(".")] if found else []
    while numbers and numbers[-1] == 0:
        numbers.pop()
    rest = name[found.end() :] if found else name
    return tuple(numbers), not rest, rest


def _version(term: Term) -> Q:
    compare = _ORDER.get(term.operator)
    if compare and not re.match("[0-9]", term.value):
        raise QueryError(term.value_position, f"{term.value} has no order", "compare with a number such as 1.4")
    images = list(ModelImage.objects.values_list("known_id", "version__name"))
    if compare:
        wanted = version_key(term.value)
        return _running([digest for digest, name in images if compare(version_key(name), wanted)])
    if term.wildcard:
        running = _running([digest for digest, name in images if re.search(pattern(term.value), name)])
    else:
        running = _running([digest for digest, name in images if name == term.value])
    return running if equality(term) else ~running


def _model(term: Term) -> Q:
    lookup = (
        {"version__family__name__regex": pattern(term.value)}
        if term.wildcard
        else {"version__family__name": term.value}
    )
    running = _running(list(ModelImage.objects.filter(**lookup).values_list("known_id", flat=True)))
    return running if equality(term) else ~running


def _running(digests: list[str]) -> Q:
    # A node may have reported the whole digest or only its first 4 bytes.
    return Q(active_digest__in=[*digests, *(digest[:8] for digest in digests)])
