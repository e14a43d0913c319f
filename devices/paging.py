"""Pages of nodes by key, in any order, for any filter, whose cost does not grow with the fleet.

PostgreSQL can find a page in two ways: walk along the order until enough nodes match, or gather all that match and order
them. The first is quick where many match, the second where few do, and its estimates for labels and patterns are too
rough to choose by. So the order is walked for a bounded stretch, and only what that does not fill is gathered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import BooleanField, F, Func, QuerySet, Value
from django.db.models.expressions import OrderBy, RawSQL

from devices.models import Node

# Nodes that are walked along at first and at most. With a share of matches above 1 % a page of 50 is full by then.
SHORT_STRETCH, STRETCH = 500, 5000
# Most matches that are first gathered and then put in order, in two statements: after the short stretch, and at most.
GATHERED_SOON, GATHERED = 5000, 20_000


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


def page_of_nodes(matching: QuerySet[Node], *, sort: str = "", cursor: Cursor | None = None, limit: int) -> list[int]:
    """Ids of at most `limit` nodes from the cursor on, in the order of `sort`: a column, `-` before it for descending (ids
    too), or empty for the order of registration."""
    ids: list[int] = []
    few: list[int] | None = None
    for part, order in _parts(sort, cursor or Cursor()):
        page = None
        # Along the order, or all that match: first a little of each, then much of each.
        for stretch, most in ((SHORT_STRETCH, GATHERED_SOON), (STRETCH, GATHERED)):
            if few is None:
                page = _walked(matching, part, order, stretch, limit - len(ids))
            if page is None and few is None:
                few = _few(matching, most)
            if page is not None or few is not None:
                break
        if page is None:
            page = _gathered(matching & part if few is None else _among(part, few), order, limit - len(ids))
        ids += page
        if len(ids) == limit or (few is not None and len(ids) == len(few)):
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
            ends = [_Row(F(by.path), F(key)), _Row(Value(cursor.value), Value(cursor.after))]
            valued = valued.filter(_Beyond(*(reversed(ends) if down else ends)))
        yield valued, [F(name).desc() if down else F(name).asc() for name in (by.path, key)]
    if by.may_be_missing:
        yield (
            fleet.filter(**{f"{by.path}__isnull": True}, pk__gt=0 if cursor.value is not None else cursor.after),
            by_id,
        )


def _walked(
    matching: QuerySet[Node], part: QuerySet[Node], order: list[OrderBy], length: int, limit: int
) -> list[int] | None:
    """None where a stretch of this length does not fill the page and is not the last."""
    stretch = list(part.order_by(*order).values_list("pk", flat=True)[:length])
    matches = set(_among(matching, stretch).order_by().values_list("pk", flat=True))
    found = [pk for pk in stretch if pk in matches][:limit]
    return found if len(found) == limit or len(stretch) < length else None


def _few(matching: QuerySet[Node], most: int) -> list[int] | None:
    """All that match, by the indexes of the filter alone; None where they are more than `most`."""
    found = list(matching.order_by().values_list("pk", flat=True)[: most + 1])
    return found if len(found) <= most else None


def _gathered(rows: QuerySet[Node], order: list[OrderBy], limit: int) -> list[int]:
    # No index of the order is of use now, so the planner is kept from walking along one.
    ordered = [OrderBy(Func(one.expression, function="COALESCE"), descending=one.descending) for one in order]
    return list(rows.order_by(*ordered).values_list("pk", flat=True)[:limit])


def _among(rows: QuerySet[Node], ids: list[int]) -> QuerySet[Node]:
    """Those of `ids`, whose number the planner then knows."""
    return rows.filter(pk__in=RawSQL("SELECT unnest(%s::bigint[])", [ids]))


class _Row(Func):
    function = "ROW"
    output_field = BooleanField()  # of no use, and Django asks for one


class _Beyond(Func):
    """One row of values after another, as one comparison that an index answers."""

    template, arg_joiner = "%(expressions)s", " > "
    conditional = True
    output_field = BooleanField()
