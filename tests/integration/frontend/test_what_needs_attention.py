"""The screen of what a person should look at: campaigns that stand still, nodes that fell short, the penalty box."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.test import Client
from django.utils import timezone

from fleet.accounts.models import Role
from fleet.audit.models import AuditEntry
from tests import factories
from updates.models import NodeUpdate

pytestmark = pytest.mark.django_db
SignIn = Callable[[Role], Client]


def test_nodes_that_fell_short_stand_with_their_cause_and_campaign(sign_in: SignIn) -> None:
    node, fine = factories.make_node(endpoint="press-1"), factories.make_node(endpoint="press-2")
    factories.make_campaign(
        name="1.4 to all", state="halted", reason="Too many.", waves=[[(node, "failed"), (fine, "confirmed")]]
    )
    page = sign_in(Role.VIEWER).get("/attention/").content.decode()
    for words in (
        "press-1",
        "1.4 to all",
        "Too many.",
        "gave other outputs than the golden ones",
        "1 campaign stands still",
    ):
        assert words in page
    assert "press-2" not in page


def test_a_fleet_without_trouble_says_so(sign_in: SignIn) -> None:
    assert "Nothing needs attention." in sign_in(Role.VIEWER).get("/attention/").content.decode()


def test_an_operator_lets_a_node_out_of_the_penalty_box(sign_in: SignIn) -> None:
    node = factories.make_node(endpoint="press-1")
    for _ in range(3):
        factories.make_campaign(state="finished", waves=[[(node, "failed")]])
    NodeUpdate.objects.update(changed_at=timezone.now())
    client = sign_in(Role.OPERATOR)
    assert "Release press-1" in client.get("/attention/").content.decode()

    answer = client.post(f"/attention/nodes/{node.pk}/release/", follow=True).content.decode()

    assert "press-1 is out of the penalty box" in answer
    assert "Release press-1" not in answer
    assert AuditEntry.objects.filter(action="node.released").count() == 1


def test_pages_go_on_where_the_last_one_ended(sign_in: SignIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("updates.selectors.PAGE", 2)
    nodes = [factories.make_node(endpoint=f"press-{number}") for number in range(5)]
    factories.make_campaign(waves=[[(node, "silent") for node in nodes]])
    client, address, seen = sign_in(Role.VIEWER), "/attention/", list[str]()
    while address:
        context = client.get(address).context
        seen += [one.node.endpoint for one in context["nodes"]]
        address = f"/attention/?before={context['next_before']}" if context["next_before"] else ""
    assert seen == [f"press-{number}" for number in (4, 3, 2, 1, 0)]
