from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from django.test import Client
from django.utils import timezone

from fleet.accounts.models import ApiToken, Role, User
from fleet.accounts.services import create_user, issue_token, revoke_token
from fleet.audit.models import AuditEntry
from tests.integration.api.conftest import Caller
from updates import selectors


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nowhere", 404),
        ("GET", "", 404),
        ("GET", "/", 404),
        ("DELETE", "/nodes", 405),
        ("GET", "/versions/x", 422),
        ("GET", "/nodes/x", 404),
    ],
)
def test_every_error_is_a_problem(call: Caller, method: str, path: str, status: int) -> None:
    response = call("viewer", method, path)
    assert response.status_code == status
    assert response["Content-Type"] == "application/problem+json"
    assert response.json().keys() >= {"type", "title", "status", "detail"}


def test_a_crash_is_a_problem_that_tells_no_secrets(call: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(**arguments: object) -> None:
        raise RuntimeError("the password is hunter2")

    monkeypatch.setattr(selectors, "campaigns", crash)
    response = call("viewer", "GET", "/campaigns")
    assert (response.status_code, response["Content-Type"]) == (500, "application/problem+json")
    assert b"hunter2" not in response.content


def test_a_refused_method_says_which_are_allowed(call: Caller) -> None:
    assert "GET" in call("viewer", "DELETE", "/nodes")["Allow"]


def test_a_body_declared_with_3_gigabytes_is_refused_unread(call: Caller) -> None:
    response = Client().post(
        "/api/v1/versions", data=b"", content_type="multipart/form-data; boundary=x", CONTENT_LENGTH=str(3 * 1024**3)
    )
    assert response.status_code == 413
    assert response.json()["field"] == "Content-Length"


def test_the_documentation_comes_from_this_server_alone(call: Caller) -> None:
    page = Client().get("/api/v1/docs").content.decode()
    assert "swagger-ui-bundle.js" in page
    assert "http://" not in page
    assert "https://" not in page
    inline = [part for part in page.split("<script")[1:] if "src=" not in part.split(">")[0]]
    assert all('type="application/json"' in part.split(">")[0] for part in inline)
    assert "style=" not in page


def test_the_schema_snapshot_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from frontend.management.commands import openapi

    call_command("openapi", "--check")
    monkeypatch.setattr(openapi, "SNAPSHOT", tmp_path / "openapi.json")
    with pytest.raises(CommandError, match="openapi"):
        call_command("openapi", "--check")
    call_command("openapi")
    call_command("openapi", "--check")


def test_a_revoked_an_expired_and_an_unknown_token_are_not_let_in(db: None) -> None:
    user = create_user(username="ci", password="correct horse battery", role=Role.OPERATOR, actor="test")
    now = timezone.now()
    live, secret = issue_token(user=user, name="live", role=Role.VIEWER, actor="test")
    _, expired = issue_token(user=user, name="old", expires_at=now - timedelta(seconds=1), actor="test")

    def status(bearer: str) -> int:
        return Client().get("/api/v1/nodes", headers={"Authorization": f"Bearer {bearer}"}).status_code

    assert status(secret) == 200
    assert ApiToken.objects.get(pk=live.pk).last_used_at is not None
    assert status(expired) == 401
    assert status("mf_unknown") == 401
    assert revoke_token(token=live, actor="test", now=now)
    assert not revoke_token(token=live, actor="test", now=now)
    assert status(secret) == 401
    assert secret not in str(list(AuditEntry.objects.values()))


def test_last_use_is_written_at_most_once_a_minute(db: None) -> None:
    user = User.objects.create(username="ci", role=Role.VIEWER)
    token, secret = issue_token(user=user, name="ci", role=Role.VIEWER, actor="test")
    recent = timezone.now() - timedelta(seconds=30)
    ApiToken.objects.filter(pk=token.pk).update(last_used_at=recent)
    Client().get("/api/v1/nodes", headers={"Authorization": f"Bearer {secret}"})
    assert ApiToken.objects.get(pk=token.pk).last_used_at == recent


def test_a_token_reaches_no_further_than_its_user(db: None) -> None:
    user = User.objects.create(username="viewer", role=Role.VIEWER)
    _, secret = issue_token(user=user, name="too much", role=Role.ADMIN, actor="test")
    response = Client().post("/api/v1/families", headers={"Authorization": f"Bearer {secret}"})
    assert response.status_code == 403


def test_commands_make_users_and_tokens(db: None, capsys: pytest.CaptureFixture[str]) -> None:
    call_command("create_user", "ann", role="operator")
    assert "password: " in capsys.readouterr().out
    call_command("create_user", "ann", ensure=True)
    with pytest.raises(CommandError):
        call_command("create_user", "ann")
    call_command("create_token", "ann", name="ci", role="operator")
    secret = capsys.readouterr().out.split()[-1]
    assert ApiToken.objects.get(token_hash=ApiToken.hash(secret)).user.username == "ann"
