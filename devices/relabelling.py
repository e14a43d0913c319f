"""Labels and sites of many nodes, or of one, set and removed by people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.contrib.postgres.fields import ArrayField
from django.db import transaction
from django.db.models import F, Func, JSONField, Q, QuerySet, TextField, Value

from devices.labels import MAXIMUM_LABELS, LabelError, check_label, check_number, check_site
from devices.models import Node
from fleet.audit.models import record, record_many

EXAMPLES = 5


class SelectionChanged(Exception):
    """What is to be changed is no longer what was previewed."""

    def __init__(self, *, expected: int, found: int) -> None:
        super().__init__(expected, found)
        self.expected, self.found = expected, found
        self.fix = "Look at the preview again and confirm the new number."

    def __str__(self) -> str:
        return f"expected: the preview said {self.expected} nodes would change, now it is {self.found}."


@dataclass(frozen=True)
class Relabelling:
    """Labels to set, keys to remove, and a site (None: as it is; empty: none). Raises LabelError."""

    put: Mapping[str, str] = field(default_factory=dict)
    remove: Sequence[str] = ()
    site: str | None = None

    def __post_init__(self) -> None:
        for key, value in self.put.items():
            check_label(key, value)
        for key in self.remove:
            check_label(key, "")
        check_number(self.put)
        if both := sorted(set(self.put) & set(self.remove)):
            raise LabelError(both[0], f"label {both[0]} is to be set and removed", "choose one of the two")
        if self.site is not None:
            check_site(self.site)
        if not self.put and not self.remove and self.site is None:
            raise LabelError("", "nothing is to be changed", "give labels to set, keys to remove or a site")

    def words(self) -> dict[str, Any]:
        """As the audit log keeps it."""
        given = {"set": dict(self.put), "remove": list(self.remove)}
        return {name: value for name, value in given.items() if value} | (
            {} if self.site is None else {"site": self.site}
        )

    def applied(self, node: Node) -> dict[str, Any]:
        """Labels and site of this node afterwards."""
        kept = {key: value for key, value in node.labels.items() if key not in self.remove}
        return {"labels": kept | dict(self.put), "site": node.site if self.site is None else self.site}


@dataclass(frozen=True)
class Example:
    endpoint: str
    before: dict[str, Any]
    after: dict[str, Any]


@dataclass(frozen=True)
class Preview:
    """`changes` of the `selected` nodes would differ afterwards."""

    selected: int
    changes: int
    examples: list[Example]


def preview(*, nodes: QuerySet[Node], change: Relabelling) -> Preview:
    """Raises LabelError where a node would have too many labels."""
    touched = _touched(nodes, change)
    _refuse_too_many(touched.only("endpoint", "labels", "site").iterator(), change)
    return Preview(
        selected=nodes.count(),
        changes=touched.count(),
        examples=[
            Example(node.endpoint, {"labels": node.labels, "site": node.site}, change.applied(node))
            for node in touched.order_by("id")[:EXAMPLES]
        ],
    )


@transaction.atomic
def relabel(
    *, nodes: QuerySet[Node], change: Relabelling, expected: int, selection: Mapping[str, Any], actor: str
) -> int:
    """Changes all nodes that differ, in one statement, and says how many.

    `expected` is what the preview said; `selection` (a filter, or ids) is for the audit log, which gets an entry for
    the whole and one for each node. Raises SelectionChanged and LabelError; then nothing is changed.
    """
    touched = _touched(nodes, change)
    locked = list(
        touched.order_by("id").select_for_update(of=("self",), no_key=True).only("endpoint", "labels", "site")
    )
    if len(locked) != expected:
        raise SelectionChanged(expected=expected, found=len(locked))
    _refuse_too_many(locked, change)
    changes = [(node, {"labels": node.labels, "site": node.site}, change.applied(node)) for node in locked]
    site = {} if change.site is None else {"site": change.site}
    Node.objects.filter(pk__in=[node.pk for node in locked]).update(labels=_labels_after(change), **site)
    record(
        actor=actor,
        action="nodes.relabelled",
        subject=Node(),
        after={**change.words(), "selection": dict(selection), "nodes": len(locked)},
    )
    record_many(actor=actor, action="node.relabelled", changes=changes)
    return len(locked)


@transaction.atomic
def describe_node(*, node_id: int, labels: Mapping[str, str], site: str, actor: str) -> Node:
    """All labels and the site of one node, as given. Raises LabelError and Node.DoesNotExist."""
    for key, value in labels.items():
        check_label(key, value)
    check_number(labels)
    check_site(site)
    node = Node.objects.select_for_update(of=("self",), no_key=True).get(pk=node_id)
    before = {"labels": node.labels, "site": node.site}
    after = {"labels": dict(labels), "site": site}
    if before != after:
        node.labels, node.site = dict(labels), site
        node.save(update_fields=["labels", "site"])
        record(actor=actor, action="node.relabelled", subject=node, before=before, after=after)
    return node


def _labels_after(change: Relabelling) -> Func:
    keys = Value(list(change.remove), output_field=ArrayField(TextField()))
    put = Value(dict(change.put), output_field=JSONField())
    kept = Func(F("labels"), keys, template="(%(expressions)s)", arg_joiner=" - ", output_field=JSONField())
    return Func(kept, put, template="%(expressions)s", arg_joiner=" || ", output_field=JSONField())


def _touched(nodes: QuerySet[Node], change: Relabelling) -> QuerySet[Node]:
    differs = Q()
    if change.put:
        differs |= ~Q(labels__contains=dict(change.put))
    if change.remove:
        differs |= Q(labels__has_any_keys=list(change.remove))
    if change.site is not None:
        differs |= ~Q(site=change.site)
    return nodes.filter(differs)


def _refuse_too_many(nodes: Iterable[Node], change: Relabelling) -> None:
    for node in nodes if change.put else ():
        labels = change.applied(node)["labels"]
        if len(labels) > MAXIMUM_LABELS:
            raise LabelError(
                node.endpoint,
                f"{node.endpoint} would have {len(labels)} labels",
                f"keep at most {MAXIMUM_LABELS}: remove some, or leave this node out",
            )
