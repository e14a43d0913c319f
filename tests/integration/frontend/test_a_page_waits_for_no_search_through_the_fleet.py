"""Where few nodes match and no index leads to them, the page comes first and the nodes after it."""

from __future__ import annotations

import html
import re
from collections.abc import Callable

import pytest
from django.test import Client

from devices import paging
from devices.models import Node
from fleet.accounts.models import Role
from tests import factories

pytestmark = pytest.mark.django_db
SignIn = Callable[[Role], Client]
FILTER = "/nodes/?text=not+label.line:*"


@pytest.fixture
def large_fleet(monkeypatch: pytest.MonkeyPatch) -> list[Node]:
    """Twenty nodes that are as many for the limits as a million are; the last alone has no line."""
    monkeypatch.setattr(paging, "COSTLY", 0)
    monkeypatch.setattr(paging, "SHORT_STRETCH", 2)
    monkeypatch.setattr(paging, "STRETCH", 5)
    profile = factories.make_profile()
    return [
        factories.make_node(profile=profile, endpoint=f"node-{number:02}", labels={} if number == 19 else {"line": "1"})
        for number in range(20)
    ]


def test_the_page_says_that_it_searches_and_asks_for_the_nodes_by_itself(
    sign_in: SignIn, large_fleet: list[Node]
) -> None:
    client = sign_in(Role.VIEWER)

    page = client.get(FILTER).content.decode()

    assert "Searching the whole fleet" in page
    assert "node-19" not in page
    assert "No node matches" not in page
    again = re.search(r'hx-get="(\?[^"]*)" hx-trigger="load" hx-target="#main"', page)
    assert again is not None
    found = client.get("/nodes/" + html.unescape(again[1])).content.decode()
    assert "node-19" in found
    assert "node-18" not in found


def test_a_page_that_is_full_soon_comes_at_once(sign_in: SignIn, large_fleet: list[Node]) -> None:
    Node.objects.exclude(pk=large_fleet[0].pk).delete()

    page = sign_in(Role.VIEWER).get("/nodes/?text=label.line=1").content.decode()

    assert "node-00" in page
    assert "Searching" not in page


def test_the_order_is_kept_through_the_search(sign_in: SignIn, large_fleet: list[Node]) -> None:
    Node.objects.filter(endpoint__in=["node-17", "node-18"]).update(labels={})

    page = sign_in(Role.VIEWER).get(FILTER + "&sort=-endpoint&whole_fleet=on").content.decode()

    assert re.findall(r">(node-\d\d)</a>", page) == ["node-19", "node-18", "node-17"]
