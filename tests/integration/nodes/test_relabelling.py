"""Labels of many nodes at once: previewed, confirmed by number, in one statement."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from devices.labels import LabelError
from devices.models import Node
from devices.relabelling import Relabelling, SelectionChanged, preview, relabel
from fleet.audit.models import AuditEntry
from tests import factories

CHANGE = Relabelling(put={"tag": "canary"}, remove=["old"], site="plant-4")


@pytest.fixture
def three(db: None) -> list[Node]:
    profile = factories.make_profile()
    labels: list[dict[str, Any]] = [{"old": "1", "line": 7}, {}, {"tag": "canary"}]
    return [
        factories.make_node(profile=profile, labels=one, site="plant-4" if "tag" in one else "plant-3")
        for one in labels
    ]


def test_the_preview_counts_only_nodes_that_would_differ(three: list[Node]) -> None:
    seen = preview(nodes=Node.objects.all(), change=CHANGE)

    assert (seen.selected, seen.changes) == (3, 2)
    assert seen.examples[0].after == {"labels": {"line": 7, "tag": "canary"}, "site": "plant-4"}
    assert Node.objects.filter(labels__has_key="old").exists()


def test_one_statement_changes_all_and_the_audit_log_has_the_filter_and_each_node(three: list[Node]) -> None:
    with CaptureQueriesContext(connection) as context:
        changed = relabel(
            nodes=Node.objects.all(), change=CHANGE, expected=2, selection={"filter": "site:x"}, actor="ann"
        )

    updates = [query for query in context.captured_queries if query["sql"].startswith("UPDATE")]
    assert (changed, len(updates)) == (2, 1)
    assert list(Node.objects.order_by("id").values_list("labels", "site")) == [
        ({"line": 7, "tag": "canary"}, "plant-4"),
        ({"tag": "canary"}, "plant-4"),
        ({"tag": "canary"}, "plant-4"),
    ]
    whole = AuditEntry.objects.get(action="nodes.relabelled")
    assert whole.after == {
        "set": {"tag": "canary"},
        "remove": ["old"],
        "site": "plant-4",
        "selection": {"filter": "site:x"},
        "nodes": 2,
    }
    one = AuditEntry.objects.get(action="node.relabelled", object_id=str(three[0].pk))
    assert one.before == {"labels": {"old": "1", "line": 7}, "site": "plant-3"}


def test_a_selection_that_grew_since_the_preview_is_asked_for_again(three: list[Node]) -> None:
    factories.make_node(profile=three[0].profile)

    with pytest.raises(SelectionChanged) as refusal:
        relabel(nodes=Node.objects.all(), change=CHANGE, expected=2, selection={}, actor="ann")

    assert refusal.value.found == 3
    assert not Node.objects.filter(labels__tag="canary", labels__line=7).exists()
    assert not AuditEntry.objects.exists()


def test_removing_alone_and_setting_alone_leave_the_rest(three: list[Node]) -> None:
    relabel(nodes=Node.objects.all(), change=Relabelling(remove=["old"]), expected=1, selection={}, actor="ann")
    relabel(nodes=Node.objects.all(), change=Relabelling(put={"a": "b"}), expected=3, selection={}, actor="ann")

    assert Node.objects.get(pk=three[0].pk).labels == {"line": 7, "a": "b"}


def test_no_node_gets_more_labels_than_it_may_have(three: list[Node]) -> None:
    Node.objects.filter(pk=three[0].pk).update(labels={f"k{number}": "" for number in range(32)})

    for call in (
        lambda: preview(nodes=Node.objects.all(), change=Relabelling(put={"one": "more"})),
        lambda: relabel(
            nodes=Node.objects.all(), change=Relabelling(put={"one": "more"}), expected=3, selection={}, actor="ann"
        ),
    ):
        with pytest.raises(LabelError, match="33 labels"):
            call()


@pytest.mark.parametrize(
    "fields", [{}, {"put": {"a b": "1"}}, {"put": {"a": "1"}, "remove": ["a"]}, {"site": "x" * 65}]
)
def test_a_change_without_sense_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(LabelError):
        Relabelling(**fields)
