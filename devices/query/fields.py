"""The tree of a filter to a Django condition on devices.Node."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta

from django.db.models import F, Q, TextField, Value
from django.db.models.fields.json import KeyTextTransform
from django.db.models.functions import Cast
from django.db.models.lookups import Contains as Like
from django.db.models.lookups import Regex

from devices.models import LinkKind
from devices.query.language import And, Not, Or, QueryError, Term, Tree, parse
from devices.selectors import sites

Resolver = Callable[[Term], Q]
_COLUMNS = {
    "endpoint": "endpoint",
    "profile": "profile__name",
    "site": "site",
    "firmware": "firmware_build__name",
    "link": "link",
}
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_LONGEST = timedelta(days=3650)


def compile_query(text: str, *, now: datetime, extra: Mapping[str, Resolver] | None = None) -> Q:
    """What to give to Node.objects.filter(). `extra` adds fields of apps above. Raises QueryError."""
    try:
        tree = parse(text)
        return Q() if tree is None else _compile(tree, now, extra or {})
    except QueryError as error:
        error.text = text
        raise


def _compile(tree: Tree, now: datetime, extra: Mapping[str, Resolver]) -> Q:
    match tree:
        case Not(part):
            return ~_compile(part, now, extra)
        case And(parts):
            return Q(*(_compile(part, now, extra) for part in parts))
        case Or(parts):
            return Q(*(_compile(part, now, extra) for part in parts), _connector=Q.OR)
        case Term():
            return _term(tree, now, extra)


def _term(term: Term, now: datetime, extra: Mapping[str, Resolver]) -> Q:
    name = term.field.lower()
    if name in extra:
        return extra[name](term)
    if name == "seen":
        return _seen(term, now)
    if name == "battery":
        return _battery(term)
    equal = equality(term)
    if name.startswith("label.") and len(name) > len("label."):
        condition = _label(term, term.field[len("label.") :])
    elif column := _COLUMNS.get(name):
        if name == "link" and not term.wildcard and term.value not in LinkKind.values:
            raise QueryError(
                term.value_position, f"link {term.value} is unknown", f"use {' or '.join(LinkKind.values)}"
            )
        condition = _pattern(column, pattern(term.value)) if term.wildcard else Q(**{column: term.value})
    else:
        known = ", ".join(sorted([*_COLUMNS, "battery", "label.<key>", "seen", *extra]))
        raise QueryError(
            term.position, f"field {term.field} is unknown", f"use one of {known}", expected=("a known field",)
        )
    return condition if equal else ~condition


def _pattern(column: str, regex: str) -> Q:
    if column == "site":
        # There are few sites, and an index of nodes by site.
        return Q(site__in=[site for site in sites() if re.search(regex, site, re.DOTALL)])
    return Q(**{f"{column}__regex": regex})


def equality(term: Term) -> bool:
    """Whether the term asks for equal or for unequal. Raises QueryError for an order where there is none."""
    if term.operator not in (":", "=", "!="):
        raise QueryError(
            term.value_position - len(term.operator),
            f"{term.field} has no order, so {term.operator} does not apply",
            "use : or !=",
        )
    return term.operator != "!="


def pattern(value: str) -> str:
    """A star stands for any signs: as a regular expression over the whole value."""
    return "^" + ".*".join(re.escape(part) for part in value.split("*")) + "$"


def _label(term: Term, key: str) -> Q:
    if term.wildcard:
        # Without the key there is nothing to compare, and `not` must then hold.
        matches = Q(labels__has_key=key) & Q(Regex(KeyTextTransform(key, F("labels")), Value(pattern(term.value))))
        # Besides, so that an index narrows it down: the text of all labels holds the longest piece of the pattern. JSON
        # writes some signs otherwise than they are; a piece with one of them says nothing.
        longest = max(re.split(r'[*"\\\x00-\x1f]', term.value), key=len)
        return matches & Q(Like(Cast(F("labels"), TextField()), longest)) if len(longest) > 2 else matches
    values: list[object] = [term.value]
    if re.fullmatch(r"-?(0|[1-9][0-9]{0,14})", term.value):
        values.append(int(term.value))
    if term.value in ("true", "false"):
        values.append(term.value == "true")
    return Q(*(Q(labels__contains={key: value}) for value in values), _connector=Q.OR)


def _battery(term: Term) -> Q:
    found = re.fullmatch(r"([0-9]{1,3})%?", term.value)
    if found is None or int(found[1]) > 100:
        raise QueryError(
            term.value_position,
            f"{term.value} is no battery level",
            "write percent from 0 to 100, such as battery<20",
            expected=("0 to 100",),
        )
    lookup = {"<": "__lt", "<=": "__lte", ">": "__gt", ">=": "__gte"}.get(term.operator, "")
    condition = Q(**{f"presence__battery_percent{lookup}": int(found[1])})
    return ~condition if term.operator == "!=" else condition


def _seen(term: Term, now: datetime) -> Q:
    if term.value == "never" and term.operator in (":", "="):
        return Q(presence__isnull=True)
    parts = re.fullmatch(r"([0-9]{1,6})([smhdw])", term.value)
    if parts is None or term.operator not in ("<", "<=", ">", ">="):
        raise QueryError(
            term.value_position,
            f"{term.field}{term.operator}{term.value} is no age",
            "write seen<24h, seen>7d or seen:never; units are s, m, h, d, w",
            expected=("an age, such as 24h",),
        )
    age = timedelta(seconds=int(parts[1]) * _UNITS[parts[2]])
    if age > _LONGEST:
        raise QueryError(term.value_position, f"{term.value} is too long ago", f"use at most {_LONGEST.days}d")
    if term.operator in ("<", "<="):
        return Q(presence__last_seen_at__gt=now - age)
    # A node that never spoke was not seen lately either.
    return Q(presence__last_seen_at__lte=now - age) | Q(presence__isnull=True)
