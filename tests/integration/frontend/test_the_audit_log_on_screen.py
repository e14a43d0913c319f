from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from django.db import connection
from django.test import Client

from fleet.accounts.models import Role
from fleet.accounts.services import issue_token
from fleet.audit.models import AuditEntry, record
from fleet.audit.selectors import AuditFilter, entries
from tests import factories
from tests.integration.frontend.conftest import HOSTILE

pytestmark = pytest.mark.django_db
SignIn = Callable[[Role], Client]


def write(at: datetime | None = None, **fields: Any) -> AuditEntry:
    entry = record(**{"actor": "ann", "action": "node.changed", "subject": factories.make_node()} | fields)
    if at:
        # The trigger refuses it, as it should; a superuser's switch puts the past there for the test.
        with connection.cursor() as cursor:
            cursor.execute("SET LOCAL session_replication_role = replica")
            cursor.execute("UPDATE audit_auditentry SET at = %s WHERE id = %s", [at, entry.pk])
            cursor.execute("SET LOCAL session_replication_role = DEFAULT")
    return entry


def shown(client: Client, query: str) -> str:
    response = client.get(f"/audit/?{query}")
    assert response.status_code == 200
    return response.content.decode()


def test_before_and_after_stand_side_by_side_and_lead_to_the_subject(sign_in: SignIn) -> None:
    entry = write(before={"role": "viewer", "kept": 1}, after={"role": "admin", "kept": 1})
    page = shown(sign_in(Role.APPROVER), "")
    assert "<del>viewer</del>" in page
    assert "<ins>admin</ins>" in page
    assert "<dt>kept</dt><dd>1</dd>" in page
    assert f'href="/nodes/{entry.object_id}/"' in page


def test_values_cannot_become_markup(sign_in: SignIn) -> None:
    write(actor=HOSTILE, before={HOSTILE: HOSTILE}, after={HOSTILE: "x"})
    assert HOSTILE not in shown(sign_in(Role.ADMIN), "")


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("actor=ann", ["own", "token"]),
        ("actor=an", []),
        ("action=campaign.", ["other"]),
        ("action=node.changed", ["own", "token"]),
        ("text=needle", ["token"]),
        ("subject=devices.node", ["own", "token", "other"]),
        ("subject=devices.node/999999", []),
    ],
)
def test_a_filter_finds_what_it_names(sign_in: SignIn, query: str, found: list[str]) -> None:
    write(after={"mark": "own-mark"})
    write(actor="ann (ci)", after={"mark": "token-mark", "in": {"deep": "a Needle here"}})
    write(actor="bob", action="campaign.pause", after={"mark": "other-mark"})
    page = shown(sign_in(Role.APPROVER), query)
    assert [mark for mark in ("own", "token", "other") if f"{mark}-mark" in page] == found


def test_a_range_is_read_in_the_zone_that_is_named(sign_in: SignIn) -> None:
    write(at=datetime(2026, 7, 1, 10, 30, tzinfo=UTC), after={"mark": "summer-mark"})
    client = sign_in(Role.APPROVER)
    inside = "since=2026-07-01T12:00&until=2026-07-01T13:00&zone=Europe/Berlin"
    assert "summer-mark" in shown(client, inside)
    assert "summer-mark" in shown(client, inside.replace("Europe/Berlin", "%2B02:00"))
    assert "summer-mark" not in shown(client, inside.replace("Europe/Berlin", "UTC"))


@pytest.mark.parametrize(
    "query",
    [
        *("zone=Atlantis", "zone=../etc/passwd", "since=yesterday"),
        *("since=2026-01-02T00:00&until=2026-01-01T00:00", "since=0001-01-01T00:00&zone=%2B02:00"),
    ],
)
def test_a_filter_that_cannot_be_read_shows_nothing_and_says_why(sign_in: SignIn, query: str) -> None:
    write(after={"mark": "own-mark"})
    response = sign_in(Role.APPROVER).get(f"/audit/?{query}")
    assert response.status_code == 400
    assert 'class="error"' in response.content.decode()
    assert "own-mark" not in response.content.decode()


def test_pages_follow_each_other_by_key(sign_in: SignIn) -> None:
    made = [write(after={"number": f"n{number}n"}) for number in range(60)]
    client = sign_in(Role.APPROVER)
    first = shown(client, "actor=ann")
    older = made[10].pk
    assert f"?actor=ann&amp;before={older}" in first
    second = shown(client, f"actor=ann&before={older}")
    assert "n9n" in second
    assert "n10n" not in second
    assert client.get("/audit/?before=x").status_code == 404


def test_an_export_holds_what_the_filter_lets_through_and_is_written_down_itself(sign_in: SignIn) -> None:
    write(before=None, after={"a": "=1+1"}, actor="=cmd()")
    write(actor="bob")
    client = sign_in(Role.APPROVER)
    rows = list(csv.DictReader(io.StringIO(client.get("/audit/export.csv?action=node.changed").getvalue().decode())))
    assert [row["actor"] for row in rows] == ["bob", "'=cmd()"]
    assert json.loads(rows[1]["after"]) == {"a": "=1+1"}
    lines = client.get("/audit/export.jsonl?actor=bob").getvalue().decode().splitlines()
    assert [json.loads(line)["actor"] for line in lines] == ["bob"]
    kept = AuditEntry.objects.filter(action="audit.exported").order_by("pk").values_list("after", flat=True)
    assert list(kept) == [
        {"format": "csv", "filter": {"action": "node.changed"}},
        {"format": "jsonl", "filter": {"actor": "bob"}},
    ]


def test_the_api_reads_and_exports_it_too() -> None:
    user = factories.make_user(Role.APPROVER, username="lead")
    _, secret = issue_token(user=user, name="siem", scopes=["audit"], actor="test")
    write(actor="bob", after={"x": 1})
    headers = {"Authorization": f"Bearer {secret}"}
    answer = Client().get("/api/v1/audit?actor=bob&limit=1", headers=headers).json()
    assert [entry["after"] for entry in answer["entries"]] == [{"x": 1}]
    assert answer["next"] == answer["entries"][0]["id"]
    export = Client().get("/api/v1/audit/export.jsonl?actor=bob", headers=headers)
    assert json.loads(export.getvalue())["after"] == {"x": 1}
    assert AuditEntry.objects.get(action="audit.exported").actor == "lead (siem)"


def test_a_page_of_the_log_costs_one_query(django_assert_num_queries: Any) -> None:
    for _ in range(5):
        write()
    with django_assert_num_queries(1):
        list(entries(AuditFilter(actor="ann", text="x"))[:50])
