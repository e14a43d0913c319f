"""A list must not ask once a row, and shows each node once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.test import Client
from django.utils import timezone

from fleet.accounts.models import Role
from frontend import node_list
from tests import factories
from tests.integration.frontend.conftest import Fleet

SignIn = Callable[[Role], Client]
# session and user
SIGNED_IN = 2


def test_queries_do_not_grow_with_the_nodes(sign_in: SignIn, db: None, django_assert_max_num_queries: Any) -> None:
    client = sign_in(Role.VIEWER)
    profile = factories.make_profile()
    nodes = [factories.make_node(profile=profile, seen_at=timezone.now()) for _ in range(30)]
    factories.make_campaign(waves=[[(node, "failed") for node in nodes]])

    with django_assert_max_num_queries(8 + SIGNED_IN):
        client.get("/nodes/")


def test_keyset_pages_show_each_node_once_in_order(sign_in: SignIn, db: None, monkeypatch: Any) -> None:
    monkeypatch.setattr(node_list, "PAGE", 4)
    client = sign_in(Role.VIEWER)
    profile = factories.make_profile()
    names = [factories.make_node(profile=profile).endpoint for _ in range(10)]

    seen, address = [], "/nodes/?text=profile:" + profile.name
    while address:
        page = client.get(address)
        seen += [row.node.endpoint for row in page.context["rows"]]
        following = page.context["next"]
        address = f"/nodes/?text=profile:{profile.name}&{following}" if following else ""

    assert seen == names


def test_filters_narrow_the_list(fleet: Fleet, sign_in: SignIn) -> None:
    client = sign_in(Role.VIEWER)

    def shown(query: str) -> set[str]:
        return {row.node.endpoint for row in client.get(f"/nodes/?{query}").context["rows"]}

    every = {node.endpoint for node in fleet.nodes.values()}
    silent = fleet.nodes["silent"].endpoint
    assert shown("") == every
    assert shown("text=profile:tiny") == {fleet.nodes["skipped"].endpoint}
    assert shown(f"campaign={fleet.campaign.pk}&state=failed") == {fleet.nodes["failed"].endpoint}
    assert shown("silent=on") == {silent}
    assert shown(f"text=endpoint:{silent}") == {silent}
    assert shown("text=site:elsewhere") == set()


def test_a_filter_that_cannot_be_read_shows_where_and_no_node(fleet: Fleet, sign_in: SignIn) -> None:
    client = sign_in(Role.VIEWER)

    response = client.get("/nodes/", {"text": "site:plant-3 colour:<b>"})

    body = response.content.decode()
    assert response.status_code == 400
    assert "<b>Character 14:</b>" in body
    assert "<mark>colour:&lt;b&gt;</mark>\n             ^</pre>" in body
    assert response.context["rows"] == []
    assert "<b>Character 1:</b>" in client.get("/nodes/count/", {"text": "colour:red"}).content.decode()
