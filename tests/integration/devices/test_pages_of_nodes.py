"""Pages of nodes: whole, in order, each node once, whether a page is walked or gathered."""

from __future__ import annotations

import random
from datetime import timedelta
from typing import Any

import pytest

from devices import paging
from devices.models import Node, NodePresence
from devices.paging import SORTS, Cursor, page_of_nodes
from tests import factories
from updates.node_filter import nodes_matching

pytestmark = pytest.mark.django_db
ORDERS = ["", *SORTS, *(f"-{column}" for column in SORTS)]
FILTERS = [
    "",
    "site:plant-1",
    "endpoint:*7",
    "label.serial:*x1*",
    "not label.line=1",
    "seen:never",
    "battery<50",
    "site:p*-2",
    "version<1",
]


@pytest.fixture
def fleet() -> list[Node]:
    chance, profile = random.Random(3), factories.make_profile()
    nodes = Node.objects.bulk_create(
        Node(
            endpoint=f"node-{chance.randrange(10**6):06}-{number}",
            link="nbiot",
            profile=profile,
            site=f"plant-{number % 3}",
            labels={"line": str(number % 4), "serial": f"x{number}"},
        )
        for number in range(60)
    )
    NodePresence.objects.bulk_create(
        NodePresence(
            node=node,
            last_seen_at=factories.NOW - timedelta(hours=chance.randrange(8)),
            battery_percent=chance.choice([None, 10, 50, 90]),
        )
        for node in nodes
        if chance.random() < 0.7
    )
    return nodes


def value_of(node: Node, sort: str) -> Any:
    value: Any = node
    for name in SORTS[sort.removeprefix("-")].path.split("__"):
        value = getattr(value, name, None)
    return value


def in_order(text: str, sort: str) -> list[int]:
    """By Python: values first, in their direction; nodes without one last, by id."""
    nodes = list(nodes_matching(text, now=factories.NOW).select_related("presence"))
    if not sort:
        return sorted(node.pk for node in nodes)
    valued = [(value_of(node, sort), node.pk) for node in nodes if value_of(node, sort) is not None]
    missing = sorted(node.pk for node in nodes if value_of(node, sort) is None)
    return [pk for _, pk in sorted(valued, reverse=sort.startswith("-"))] + missing


@pytest.mark.parametrize("gathered", [1, 1000])
@pytest.mark.parametrize("stretch", [3, 5000])
@pytest.mark.parametrize("sort", ORDERS)
@pytest.mark.parametrize("text", FILTERS)
def test_pages_hold_every_match_once_and_in_order(
    fleet: list[Node], text: str, sort: str, stretch: int, gathered: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paging, "GATHERED", gathered)
    monkeypatch.setattr(paging, "SHORT_STRETCH", min(stretch, 2))
    monkeypatch.setattr(paging, "STRETCH", stretch)
    cursor, seen = Cursor(), list[int]()
    while page := page_of_nodes(nodes_matching(text, now=factories.NOW), sort=sort, cursor=cursor, limit=7):
        seen += page
        last = Node.objects.select_related("presence").get(pk=page[-1])
        cursor = Cursor(last.pk, value_of(last, sort) if sort else None)
    assert seen == in_order(text, sort)


def test_a_pattern_of_a_label_finds_signs_that_json_writes_otherwise(fleet: list[Node]) -> None:
    odd = 'say "hi" \\ ä%_ there'
    Node.objects.filter(pk=fleet[0].pk).update(labels={"note": odd})
    for pattern in ("*ä%_*", "say*there", "*_ th*"):
        assert [node.pk for node in nodes_matching(f"label.note:{pattern.replace(' ', '*')}", now=factories.NOW)] == [
            fleet[0].pk
        ]
