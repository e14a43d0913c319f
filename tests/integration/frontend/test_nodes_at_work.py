"""The list of nodes as a tool: sorting, views, labels in bulk, import and export, the timeline of one node."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.utils import timezone

from devices.models import LinkEvent, Node, SavedView
from fleet.accounts.models import Role
from fleet.audit.models import AuditEntry
from frontend import node_list
from tests import factories
from tests.integration.frontend.conftest import HOSTILE, Fleet

SignIn = Callable[[Role], Client]
HEADER = "endpoint,link,profile,site,labels\n"


def follow(client: Client, address: str) -> list[str]:
    """Endpoints of all pages, in order."""
    seen: list[str] = []
    while address:
        page = client.get(address)
        seen += [row.node.endpoint for row in page.context["rows"]]
        address = f"/nodes/?{page.context['next']}" if page.context["next"] else ""
    return seen


@pytest.mark.parametrize("sort", ["endpoint", "-endpoint", "site", "-site", "seen", "-seen", "battery", "-battery"])
def test_every_sort_shows_each_node_once_with_unknown_values_last(
    sign_in: SignIn, db: None, monkeypatch: pytest.MonkeyPatch, sort: str
) -> None:
    monkeypatch.setattr(node_list, "PAGE", 3)
    profile, now = factories.make_profile(), timezone.now()
    for number in range(11):
        seen_at = now - timedelta(hours=number % 4) if number % 3 else None
        node = factories.make_node(profile=profile, site=f"plant-{number % 2}", seen_at=seen_at)
        if seen_at and number % 2:
            node.presence.battery_percent = None
            node.presence.save()

    shown = follow(sign_in(Role.VIEWER), f"/nodes/?sort={sort}")

    def value(node: Node) -> Any:
        presence = getattr(node, "presence", None)
        return {
            "endpoint": node.endpoint,
            "site": node.site,
            "seen": presence and presence.last_seen_at,
            "battery": presence and presence.battery_percent,
        }[sort.removeprefix("-")]

    nodes = list(Node.objects.select_related("presence").order_by("id"))
    known = [node for node in nodes if value(node) is not None]
    values = sorted({value(node) for node in known}, reverse=sort.startswith("-"))
    expected = [node for one in values for node in known if value(node) == one]
    assert shown == [node.endpoint for node in [*expected, *(node for node in nodes if value(node) is None)]]


@pytest.mark.parametrize("query", ["sort=seen&after=1&at=yesterday", "sort=battery&after=1&at=x"])
def test_a_page_that_begins_nowhere_is_a_404(sign_in: SignIn, db: None, query: str) -> None:
    assert sign_in(Role.VIEWER).get(f"/nodes/?{query}").status_code == 404


def test_installed_and_target_stand_side_by_side(fleet: Fleet, sign_in: SignIn) -> None:
    rows = {row.node.pk: row for row in sign_in(Role.VIEWER).get("/nodes/").context["rows"]}

    transferring, confirmed = (rows[fleet.nodes[state].pk] for state in ("transferring", "confirmed"))
    assert transferring.installed.version.name == "1.0.0"
    assert transferring.target == str(fleet.version)
    assert confirmed.installed.version == fleet.version
    assert confirmed.target == ""


def test_an_open_update_is_shown_before_a_newer_one_that_has_ended(fleet: Fleet, sign_in: SignIn) -> None:
    node = fleet.nodes["offered"]
    factories.make_campaign(waves=[[(node, "skipped")]])

    rows = {row.node.pk: row for row in sign_in(Role.VIEWER).get("/nodes/").context["rows"]}

    assert rows[node.pk].update.state == "offered"


def test_typing_a_filter_gives_its_count_or_its_error(fleet: Fleet, sign_in: SignIn) -> None:
    client = sign_in(Role.VIEWER)

    good = client.get("/nodes/count/", {"text": "profile:tiny"}).content.decode()
    bad = client.get("/nodes/count/", {"text": "profile:tiny site"}).content.decode()

    assert "1 node matches" in good
    assert "<b>Character 18:</b>" in bad
    assert "Expected here: an operator" in bad


def test_a_view_is_saved_shown_as_a_tab_renamed_and_deleted(fleet: Fleet, sign_in: SignIn) -> None:
    client = sign_in(Role.OPERATOR)
    text = "site:plant-3 version<1.1"

    saved = client.post("/nodes/views/", {"name": f"old {HOSTILE}", "node_filter": text, "shared": "on"}, follow=True)
    view = SavedView.objects.get()
    renamed = client.post(f"/nodes/views/{view.pk}/", {"name": "behind", "shared": "on"}, follow=True)
    other = Client()
    other.force_login(factories.make_user(Role.VIEWER))

    assert saved.context["current"] == view
    assert HOSTILE not in saved.content.decode()
    assert renamed.context["current"].name == "behind"
    assert "behind" in other.get("/nodes/").content.decode()
    assert other.post(f"/nodes/views/{view.pk}/delete/").status_code == 404
    client.post(f"/nodes/views/{view.pk}/delete/")
    assert not SavedView.objects.exists()
    assert AuditEntry.objects.filter(action="view.deleted").exists()


def test_a_viewer_saves_a_private_view_and_cannot_share(fleet: Fleet, sign_in: SignIn) -> None:
    client = sign_in(Role.VIEWER)

    client.post("/nodes/views/", {"name": "mine", "node_filter": ""})
    refused = client.post("/nodes/views/", {"name": "ours", "node_filter": "", "shared": "on"}, follow=True)
    twice = client.post("/nodes/views/", {"name": "mine", "node_filter": ""}, follow=True)

    assert [view.name for view in SavedView.objects.all()] == ["mine"]
    assert "Sharing needs the role operator." in refused.content.decode()
    assert "already" in twice.content.decode()


def test_labels_of_all_that_match_are_previewed_then_changed(fleet: Fleet, sign_in: SignIn) -> None:
    client = sign_in(Role.OPERATOR)
    form = {"which": "all", "text": "profile:stm32l4", "put": "tag=canary", "remove": "line"}

    preview = client.post("/nodes/labels/", form | {"preview": "1"})
    body = preview.content.decode()
    done = client.post("/nodes/labels/", form | {"confirm": "1", "expected": "11"}, follow=True)

    assert "This changes 11 nodes." in body
    assert "line=7" in body
    assert "11 nodes changed." in done.content.decode()
    assert Node.objects.filter(labels={"tag": "canary"}).count() == 11
    assert AuditEntry.objects.get(action="nodes.relabelled").after["selection"] == {"filter": "profile:stm32l4"}


def test_labels_of_ticked_nodes_alone(fleet: Fleet, sign_in: SignIn) -> None:
    ids = [fleet.nodes["failed"].pk, fleet.nodes["silent"].pk]

    form = {"which": "ticked", "ids": ids, "site": "plant-9", "confirm": "1", "expected": "2"}
    sign_in(Role.OPERATOR).post("/nodes/labels/", form)

    assert set(Node.objects.filter(site="plant-9").values_list("pk", flat=True)) == set(ids)


def test_a_selection_that_changed_since_the_preview_asks_again(fleet: Fleet, sign_in: SignIn) -> None:
    form = {"which": "all", "text": "", "put": "a=b", "confirm": "1", "expected": "5"}

    answer = sign_in(Role.OPERATOR).post("/nodes/labels/", form)

    assert answer.status_code == 409
    assert answer.context["preview"].changes == 12
    assert "5 nodes would have changed then, 12 now" in answer.content.decode()
    assert not Node.objects.filter(labels__has_key="a").exists()


def test_labels_that_cannot_be_read_name_the_fix(fleet: Fleet, sign_in: SignIn) -> None:
    client = sign_in(Role.OPERATOR)

    for form, words in (
        ({"put": "line"}, "write key=value"),
        ({"remove": "a=b"}, "is no key"),
        ({}, "nothing is to be changed"),
        ({"site": "x", "clear_site": "on"}, "choose one of the two"),
    ):
        answer = client.post("/nodes/labels/", {"which": "all", "text": "", **form})

        assert answer.status_code == 400, form
        assert words in answer.content.decode(), form


def upload(text: str) -> SimpleUploadedFile:
    return SimpleUploadedFile("nodes.csv", text.encode(), content_type="text/csv")


def test_a_file_with_errors_lists_them_and_stores_nothing(fleet: Fleet, sign_in: SignIn) -> None:
    before = Node.objects.count()

    answer = sign_in(Role.OPERATOR).post(
        "/nodes/import/", {"file": upload(HEADER + f"new,nbiot,{HOSTILE},,\nnew2,pigeon,stm32l4,,line\n")}
    )

    body = answer.content.decode()
    assert answer.status_code == 400
    assert [(error.row, error.column) for error in answer.context["errors"]] == [
        (2, "profile"),
        (3, "link"),
        (3, "labels"),
    ]
    assert HOSTILE not in body
    assert "Nothing was stored: 3 things are wrong in 2 rows." in body.replace("&#x27;", "'")
    assert Node.objects.count() == before


def test_a_file_without_errors_is_shown_and_then_applied(fleet: Fleet, sign_in: SignIn) -> None:
    client = sign_in(Role.OPERATOR)
    before = Node.objects.count()

    shown = client.post("/nodes/import/", {"file": upload(HEADER + "new,nbiot,stm32l4,plant-9,line=7\n")})
    stored_by_preview = Node.objects.count()
    done = client.post("/nodes/import/", {"file_again": shown.context["sealed"]}, follow=True)

    assert "This registers 1 node and updates 0." in shown.content.decode()
    assert stored_by_preview == before
    assert "1 node registered" in done.content.decode()
    assert Node.objects.get(endpoint="new").labels == {"line": "7"}


def test_a_preview_that_no_longer_holds_is_shown_again(fleet: Fleet, sign_in: SignIn) -> None:
    client = sign_in(Role.OPERATOR)
    text = HEADER + "new,nbiot,stm32l4,plant-9,line=7\n"
    shown = client.post("/nodes/import/", {"file": upload(text), "update": "on"})
    factories.make_node(endpoint="new")

    again = client.post("/nodes/import/", {"file_again": shown.context["sealed"]})

    assert "The fleet has changed since the preview" in again.content.decode()
    assert Node.objects.get(endpoint="new").site == "plant-3"


def test_a_preview_that_was_tampered_with_is_refused(fleet: Fleet, sign_in: SignIn) -> None:
    answer = sign_in(Role.OPERATOR).post("/nodes/import/", {"file_again": "forged"})

    assert answer.status_code == 400
    assert "Choose the file again." in answer.content.decode()


def test_the_export_holds_what_the_list_shows(fleet: Fleet, sign_in: SignIn) -> None:
    client = sign_in(Role.VIEWER)

    answer = client.get(f"/nodes/export/?campaign={fleet.campaign.pk}&state=failed")
    lines = b"".join(answer.streaming_content).decode().splitlines()  # type: ignore[attr-defined]

    assert answer.streaming
    assert "attachment" in answer["Content-Disposition"]
    assert [line.split(",")[0] for line in lines] == ["endpoint", fleet.nodes["failed"].endpoint]
    assert client.get("/nodes/export/?text=colour:red").status_code == 302


@pytest.mark.parametrize("address", ["/nodes/labels/", "/nodes/import/"])
def test_a_viewer_changes_nothing(fleet: Fleet, sign_in: SignIn, address: str) -> None:
    client = sign_in(Role.VIEWER)

    assert client.get(address).status_code == 403
    assert client.post(address, {"which": "all", "put": "a=b"}).status_code == 403
    assert client.post(f"/nodes/{fleet.nodes['failed'].pk}/labels/", {"labels": "a=b"}).status_code == 403
    assert not Node.objects.filter(labels__has_key="a").exists()


def test_labels_are_edited_on_the_page_of_the_node(fleet: Fleet, sign_in: SignIn) -> None:
    client, node = sign_in(Role.OPERATOR), fleet.nodes["failed"]

    bad = client.post(f"/nodes/{node.pk}/labels/", {"labels": "line", "site": "x"})
    client.post(f"/nodes/{node.pk}/labels/", {"labels": "line=8; tag=a", "site": ""})

    node.refresh_from_db()
    assert bad.status_code == 400
    assert "write key=value" in bad.content.decode()
    assert (node.labels, node.site) == ({"line": "8", "tag": "a"}, "")
    assert AuditEntry.objects.get(action="node.relabelled").before == {"labels": {"line": "7"}, "site": "plant-3"}


def test_the_timeline_merges_links_campaigns_and_people_and_pages_through_all(fleet: Fleet, sign_in: SignIn) -> None:
    client, node = sign_in(Role.APPROVER), fleet.nodes["failed"]
    for number in range(70):
        LinkEvent.objects.create(
            at=timezone.now() - timedelta(minutes=number * 7 % 50), link="nbiot", kind="holds", node=node, digest=""
        )
    for number in range(5):
        client.post(f"/nodes/{node.pk}/labels/", {"labels": f"line={number}", "site": "x"})

    sources: list[str] = []
    address = f"/nodes/{node.pk}/timeline/"
    while address:
        page = client.get(address).context["timeline"]
        for moment in page.moments:
            sources += [moment.source] * moment.times
        address = f"/nodes/{node.pk}/timeline/?before={page.before}" if page.before else ""

    assert (sources.count("link"), sources.count("update"), sources.count("people")) == (70, 1, 5)
    first = client.get(f"/nodes/{node.pk}/timeline/").content.decode()
    assert len(re.findall("<b>Node said what it runs</b>", first)) < 10
    assert re.search(r"<b>Node said what it runs</b> <span class=\"quiet\">\d+ times", first)
    only = client.get(f"/nodes/{node.pk}/?kind=people").context["timeline"]
    assert only.moments[0].detail == "labels: line=3 → line=4"


def test_a_viewer_sees_no_audit_in_a_timeline(fleet: Fleet, sign_in: SignIn) -> None:
    node = fleet.nodes["failed"]
    editor = Client()
    editor.force_login(factories.make_user(Role.OPERATOR))
    editor.post(f"/nodes/{node.pk}/labels/", {"labels": "line=9", "site": ""})
    client = sign_in(Role.VIEWER)

    sources = {moment.source for moment in client.get(f"/nodes/{node.pk}/").context["timeline"].moments}

    assert "people" not in sources
    assert client.get(f"/nodes/{node.pk}/timeline/?kind=people").context["timeline"].moments == []


@pytest.mark.parametrize("query", ["before=x", "before=link.1-link.2", "before=other.1", "kind=gossip"])
def test_a_place_in_no_timeline_is_a_404(fleet: Fleet, sign_in: SignIn, query: str) -> None:
    client = sign_in(Role.VIEWER)

    assert client.get(f"/nodes/{fleet.nodes['failed'].pk}/timeline/?{query}").status_code == 404
