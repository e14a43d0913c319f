"""Pages of nodes by key, in any order, for any filter, whose cost does not grow with the fleet.

PostgreSQL can find a page in two ways: walk along the order until enough nodes match, or gather all that match and order
them. The first is quick where many match, the second where few do and an index finds them; its estimates for labels and
patterns are too rough to choose by. So the order is walked for a bounded stretch, what that does not fill is gathered up to
a bounded number, and what is left takes a search through the whole fleet, which the caller may put off.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.core.exceptions import EmptyResultSet
from django.db import connection
from django.db.models import BigIntegerField, BooleanField, Case, F, Func, Q, QuerySet, Value, When
from django.db.models.expressions import OrderBy, RawSQL

from devices.models import Node

# Nodes that are walked along at first and at most. With a share of matches above 2 % a page of 50 is full by then.
SHORT_STRETCH, STRETCH = 500, 3000
# Most matches that are first gathered and then put in order, in two statements.
GATHERED = 10_000
# Of a gathering, in PostgreSQL's cost units: 0.1 s and more above it (0.3 s for a million nodes without an index).
COSTLY = 15_000


class TakesTheWholeFleet(Exception):
    """Few nodes match, if any, and no index leads to them: half a second for a million nodes."""


@dataclass(frozen=True)
class Sort:
    """A column to sort by; nodes without a value come last either way. `read` is the inverse of str."""

    column: str
    path: str
    read: Callable[[str], Any]
    may_be_missing: bool = False


SORTS = {
    sort.column: sort
    for sort in (
        Sort("endpoint", "endpoint", str),
        Sort("site", "site", str),
        Sort("seen", "presence__last_seen_at", datetime.fromisoformat, may_be_missing=True),
        Sort("battery", "presence__battery_percent", int, may_be_missing=True),
    )
}


@dataclass(frozen=True)
class Cursor:
    """Where a page begins: below the row with this id and, where the list is sorted, this value (None: it has none)."""

    after: int = 0
    value: Any = None


def page_of_nodes(
    matching: QuerySet[Node], *, sort: str = "", cursor: Cursor | None = None, limit: int, thorough: bool = True
) -> list[int]:
    """Ids of at most `limit` nodes from the cursor on, in the order of `sort`: a column, `-` before it for descending (ids
    too), or empty for the order of registration. Unless it is to be `thorough`, raises TakesTheWholeFleet for that."""
    try:
        return _page(matching, sort, cursor or Cursor(), limit, thorough)
    except EmptyResultSet:
        # A filter that no row can match, as Django sees without asking.
        return []


def _page(matching: QuerySet[Node], sort: str, start: Cursor, limit: int, thorough: bool) -> list[int]:
    ids: list[int] = []
    gathered = False
    for part, order in _parts(sort, start):
        wanted = limit - len(ids)
        page, whole = _walked(matching, part, order, SHORT_STRETCH, wanted)
        # Twice as many as are wanted, if it goes on like this.
        promising = len(page) * STRETCH >= 2 * wanted * SHORT_STRETCH
        if not whole and promising:
            page, whole = _walked(matching, part, order, STRETCH, wanted)
        if not whole and not gathered:
            gathered = True
            if (few := _few(matching)) is not None:
                return _in_order(_among(Node.objects.all(), few), sort, start, limit)
        if not whole and not promising:
            page, whole = _walked(matching, part, order, STRETCH, wanted)
        if not whole:
            if not thorough:
                raise TakesTheWholeFleet
            return _in_order(matching, sort, start, limit)
        ids += page
        if len(ids) == limit:
            break
    return ids


def _parts(sort: str, cursor: Cursor) -> Iterator[tuple[QuerySet[Node], list[OrderBy]]]:
    """The fleet beyond the cursor in one part, or in two: those that have a value, then those that have none."""
    fleet = Node.objects.order_by()
    by_id = [F("pk").asc()]
    if not sort:
        yield fleet.filter(pk__gt=cursor.after), by_id
        return
    by = SORTS[sort.removeprefix("-")]
    down = sort.startswith("-")
    if not cursor.after or cursor.value is not None:
        valued = fleet.filter(**{f"{by.path}__isnull": False}) if by.may_be_missing else fleet
        # The key beside the value, where its index has it.
        key = f"{by.path.partition('__')[0]}__node_id" if "__" in by.path else "pk"
        if cursor.after:
            valued = valued.filter(_beyond(by, cursor, key, down=down))
        yield valued, [F(name).desc() if down else F(name).asc() for name in (by.path, key)]
    if by.may_be_missing:
        yield (
            fleet.filter(**{f"{by.path}__isnull": True}, pk__gt=0 if cursor.value is not None else cursor.after),
            by_id,
        )


# One row more than it finds, without an id: how long the stretch was.
_WALK = """
WITH stretch AS MATERIALIZED (SELECT id, row_number() OVER () AS place FROM ({stretch}) s (id))
SELECT NULL, count(*) FROM stretch
UNION ALL (SELECT id, place FROM stretch WHERE id IN ({matching}) ORDER BY place LIMIT %s)
"""


def _walked(
    matching: QuerySet[Node], part: QuerySet[Node], order: list[OrderBy], length: int, limit: int
) -> tuple[list[int], bool]:
    """Those found on a stretch of this length, and whether they are all of the page: it is full, or this is the last."""
    stretch, stretched = part.order_by(*order).values("pk")[:length].query.sql_with_params()
    # Where the stretch stands in the filter, the planner knows of how few nodes it speaks.
    among = matching.order_by().filter(pk__in=RawSQL("SELECT id FROM stretch", [])).values("pk")
    found, filtered = among.query.sql_with_params()
    with connection.cursor() as cursor:
        cursor.execute(_WALK.format(stretch=stretch, matching=found), [*stretched, *filtered, limit])
        rows = cursor.fetchall()
    (walked,) = (number for pk, number in rows if pk is None)
    ids = [pk for _, pk in sorted((place, pk) for pk, place in rows if pk is not None)]
    return ids, len(ids) == limit or walked < length


def _few(matching: QuerySet[Node]) -> list[int] | None:
    """All that match, in no order; None where they are more than GATHERED, or no index finds them cheaply."""
    rows = matching.order_by().values_list("pk", flat=True)
    (plan,) = json.loads(rows.explain(format="json"))
    if plan["Plan"]["Total Cost"] > COSTLY:
        return None
    found = list(rows[: GATHERED + 1])
    return found if len(found) <= GATHERED else None


def _in_order(rows: QuerySet[Node], sort: str, cursor: Cursor, limit: int) -> list[int]:
    """A page of these rows, all parts in one statement."""
    beyond, order = Q(pk__gt=cursor.after), [F("pk").asc()]
    if sort:
        by, down = SORTS[sort.removeprefix("-")], sort.startswith("-")
        missing = Q(**{f"{by.path}__isnull": True})
        if not cursor.after:
            beyond = Q()
        elif cursor.value is None:
            beyond &= missing
        else:
            beyond = Q(_beyond(by, cursor, "pk", down=down)) | missing
        # No index of the order is of use now, so the planner is kept from walking along one.
        value = Func(F(by.path), function="COALESCE")
        backwards = Case(When(missing, then=-F("pk")), default=F("pk"), output_field=BigIntegerField())
        order = [
            OrderBy(value, descending=down, nulls_last=True),
            OrderBy(backwards if down else F("pk"), descending=down),
        ]
    return list(rows.filter(beyond).order_by(*order).values_list("pk", flat=True)[:limit])


def _among(rows: QuerySet[Node], ids: list[int]) -> QuerySet[Node]:
    """Those of `ids`, whose number the planner then knows."""
    return rows.filter(pk__in=RawSQL("SELECT unnest(%s::bigint[])", [ids]))


def _beyond(by: Sort, cursor: Cursor, key: str, *, down: bool) -> _Beyond:
    ends = [_Row(F(by.path), F(key)), _Row(Value(cursor.value), Value(cursor.after))]
    return _Beyond(*(reversed(ends) if down else ends))


class _Row(Func):
    function = "ROW"
    output_field = BooleanField()  # of no use, and Django asks for one


class _Beyond(Func):
    """One row of values after another, as one comparison that an index answers."""

    template, arg_joiner = "%(expressions)s", " > "
    conditional = True
    output_field = BooleanField()
