"""Many nodes over the API: checking a filter, labels, CSV, saved views."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile

from devices.models import Node, SavedView
from fleet.audit.models import AuditEntry
from tests import factories
from tests.integration.api.conftest import Caller


@pytest.fixture
def nodes(db: None) -> list[Node]:
    profile = factories.make_profile(name="stm32l4")
    return [
        factories.make_node(profile=profile, endpoint=f"press-{number}", labels={"line": "7"}) for number in range(3)
    ]


def test_a_filter_is_checked_with_its_count(call: Caller, nodes: list[Node]) -> None:
    assert call("viewer", "GET", "/nodes/count?filter=endpoint:press-*").json() == {"count": 3}


def test_a_filter_that_cannot_be_read_says_where_what_and_how(call: Caller, nodes: list[Node]) -> None:
    answer = call("viewer", "GET", "/nodes/count?filter=site:a%0Anot%20site")

    problem = answer.json()
    assert answer.status_code == 422
    assert (problem["position"], problem["line"], problem["column"]) == (15, 2, 9)
    assert problem["expected"] == ["an operator: : = != < <= > >="]
    assert problem["field"] == "filter"
    assert "site:plant-3" in problem["fix"]


def test_labels_are_previewed_and_then_changed_with_the_previewed_number(call: Caller, nodes: list[Node]) -> None:
    body = {"filter": "endpoint:press-*", "set": {"tag": "canary"}, "remove": ["line"]}

    preview = call("operator", "POST", "/nodes/labels", body).json()
    done = call("operator", "POST", "/nodes/labels", body | {"expected": preview["changes"]}).json()

    assert (preview["applied"], preview["selected"], preview["changes"]) == (False, 3, 3)
    assert preview["examples"][0]["before"]["labels"] == {"line": "7"}
    assert (done["applied"], done["changes"]) == (True, 3)
    assert set(Node.objects.values_list("labels__tag", flat=True)) == {"canary"}
    assert AuditEntry.objects.get(action="nodes.relabelled").after["selection"] == {"filter": "endpoint:press-*"}


def test_another_number_than_the_previewed_one_changes_nothing(call: Caller, nodes: list[Node]) -> None:
    answer = call("operator", "POST", "/nodes/labels", {"ids": [nodes[0].pk], "set": {"a": "b"}, "expected": 2})

    assert answer.status_code == 409
    assert answer.json()["found"] == 1
    assert not Node.objects.filter(labels__has_key="a").exists()


@pytest.mark.parametrize(
    "body",
    [
        {"set": {"a": "b"}},
        {"filter": "", "ids": [1], "set": {"a": "b"}},
        {"filter": ""},
        {"filter": "", "set": {"a b": "c"}},
        {"filter": "colour:red", "set": {"a": "b"}},
    ],
)
def test_a_change_without_sense_is_refused(call: Caller, nodes: list[Node], body: dict[str, Any]) -> None:
    assert call("operator", "POST", "/nodes/labels", body).status_code == 422


def test_a_dry_run_reports_and_stores_nothing_then_the_file_is_applied(call: Caller, nodes: list[Node]) -> None:
    text = "endpoint,link,profile,labels\npress-0,nbiot,stm32l4,line=8\nnew,nbiot,stm32l4,\n"

    refused = call("operator", "POST", "/nodes/import", text)
    dry = call("operator", "POST", "/nodes/import?dry_run=true&existing=update", text).json()
    stored_by_dry_run = Node.objects.count()
    done = call("operator", "POST", "/nodes/import?existing=update", text).json()

    assert refused.status_code == 422
    assert refused["Content-Type"] == "application/problem+json"
    assert [(error["row"], error["column"]) for error in refused.json()["errors"]] == [(2, "endpoint")]
    assert (dry["applied"], dry["created"], dry["updated"], dry["first_created"]) == (False, 1, 1, ["new"])
    assert stored_by_dry_run == 3
    assert (done["applied"], Node.objects.count()) == (True, 4)
    assert Node.objects.get(endpoint="press-0").labels == {"line": "8"}


def test_a_file_sent_as_a_form_is_told_how_to_send_it(call: Caller) -> None:
    file = SimpleUploadedFile("nodes.csv", b"endpoint,link,profile\n")

    for query in ("", "?dry_run=true"):
        answer = call("operator", "POST", f"/nodes/import{query}", file=file)
        assert answer.status_code == 422
        assert "--data-binary @nodes.csv" in answer.json()["fix"]


def test_an_export_is_streamed_and_holds_what_the_filter_finds(call: Caller, nodes: list[Node]) -> None:
    answer = call("viewer", "GET", "/nodes/export?filter=endpoint:press-1")

    lines = b"".join(answer.streaming_content).decode().splitlines()
    assert answer.streaming
    assert lines[0].startswith("endpoint,link,profile,")
    assert [line.split(",")[0] for line in lines[1:]] == ["press-1"]
    assert call("viewer", "GET", "/nodes/export?filter=colour:red").status_code == 422


def test_a_view_is_made_renamed_shared_and_deleted(call: Caller, db: None) -> None:
    made = call("operator", "POST", "/node-views", {"name": "canaries", "filter": "label.tag=canary"}).json()
    assert call("viewer", "GET", "/node-views").json() == []

    changed = call("operator", "PATCH", f"/node-views/{made['id']}", {"name": "birds", "shared": True})
    seen = call("viewer", "GET", "/node-views").json()
    assert changed.status_code == 200
    assert [(view["name"], view["filter"], view["owner"]) for view in seen] == [
        ("birds", "label.tag=canary", "operator")
    ]

    assert call("viewer", "DELETE", f"/node-views/{made['id']}").status_code == 404
    assert call("operator", "DELETE", f"/node-views/{made['id']}").status_code == 204
    assert not SavedView.objects.exists()
    actions = AuditEntry.objects.filter(action__startswith="view.").order_by("id").values_list("action", flat=True)
    assert list(actions) == ["view.saved", "view.changed", "view.deleted"]


def test_a_viewer_keeps_views_private(call: Caller, db: None) -> None:
    assert call("viewer", "POST", "/node-views", {"name": "mine"}).status_code == 201
    answer = call("viewer", "POST", "/node-views", {"name": "ours", "shared": True})

    assert answer.status_code == 403
    assert answer.json()["field"] == "shared"


@pytest.mark.parametrize("body", [{"name": " "}, {"name": "twice"}, {"name": "x", "filter": "colour:red"}])
def test_a_view_that_cannot_be_kept_names_the_field(call: Caller, db: None, body: dict[str, Any]) -> None:
    call("viewer", "POST", "/node-views", {"name": "twice"})

    answer = call("viewer", "POST", "/node-views", body)

    assert answer.status_code == 422
    assert answer.json()["field"] in ("name", "filter")
    assert SavedView.objects.count() == 1
