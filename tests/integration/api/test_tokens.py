"""Tokens over the API: one's own, and never more than the token that asks."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from fleet.accounts.models import ApiToken, Role, User
from fleet.accounts.services import MAXIMUM_LIVE_TOKENS, issue_token
from fleet.audit.models import AuditEntry
from tests import factories

pytestmark = pytest.mark.django_db


@pytest.fixture
def user() -> User:
    return factories.make_user(Role.OPERATOR, username="ci")


def send(secret: str, method: str, path: str = "", body: Any = None) -> Any:
    headers = {"Authorization": f"Bearer {secret}"}
    more = {} if body is None else {"data": body, "content_type": "application/json"}
    return getattr(Client(), method)(f"/api/v1/tokens{path}", headers=headers, **more)


def secret_of(user: User, *scopes: str, **more: Any) -> str:
    return issue_token(user=user, name="boot", scopes=scopes, actor="test", **more)[1]


def test_a_token_is_made_used_listed_and_revoked(user: User) -> None:
    secret = secret_of(user, "read", "upload")
    made = send(secret, "post", body={"name": "build", "scopes": ["upload", "read"]})
    assert made.status_code == 201
    assert made.json()["scopes"] == ["read", "upload"]
    new = made.json()["secret"]
    assert [token["name"] for token in send(new, "get").json()] == ["build", "boot"]
    assert "secret" not in send(new, "get").json()[0]
    assert new not in str(list(ApiToken.objects.values())) + str(list(AuditEntry.objects.values()))
    assert send(secret, "delete", f"/{made.json()['id']}").status_code == 204
    assert send(new, "get").status_code == 401
    assert AuditEntry.objects.get(action="token.revoked").actor == "ci (boot)"


def test_a_token_passes_on_no_scope_that_it_has_not(user: User) -> None:
    answer = send(secret_of(user, "read"), "post", body={"name": "more", "scopes": ["read", "upload"]})
    assert answer.status_code == 403
    assert "upload" in answer.json()["detail"]


def test_a_scope_beyond_the_users_role_is_not_passed_on(user: User) -> None:
    answer = send(secret_of(user, "read", "approve"), "post", body={"name": "more", "scopes": ["approve"]})
    assert answer.status_code == 403


def test_a_token_makes_none_that_outlives_it(user: User) -> None:
    ends = timezone.now() + timedelta(days=1)
    secret = secret_of(user, "read", expires_at=ends)
    later = (ends + timedelta(days=1)).isoformat()
    assert send(secret, "post", body={"name": "x", "scopes": ["read"], "expires_at": later}).status_code == 422
    made = send(secret, "post", body={"name": "x", "scopes": ["read"]})
    assert ApiToken.objects.get(pk=made.json()["id"]).expires_at == ends


def test_a_time_without_a_zone_is_refused(user: User) -> None:
    body = {"name": "x", "scopes": ["read"], "expires_at": "2027-01-01T00:00:00"}
    answer = send(secret_of(user, "read"), "post", body=body)
    assert (answer.status_code, answer.json()["field"]) == (422, "body.expires_at")


def test_the_tokens_of_others_do_not_exist(user: User) -> None:
    other, _ = ApiToken.issue(user=factories.make_user(Role.ADMIN), name="other", scopes=["read"])
    secret = secret_of(user, "read")
    assert send(secret, "delete", f"/{other.pk}").status_code == 404
    assert [token["name"] for token in send(secret, "get").json()] == ["boot"]


def test_too_many_tokens_are_refused(user: User) -> None:
    secret = secret_of(user, "read")
    for number in range(MAXIMUM_LIVE_TOKENS - 1):
        ApiToken.issue(user=user, name=str(number), scopes=["read"])
    assert send(secret, "post", body={"name": "x", "scopes": ["read"]}).status_code == 409


def test_a_demoted_users_token_loses_what_the_role_lost(user: User) -> None:
    secret = secret_of(user, "read", "upload")
    User.objects.filter(pk=user.pk).update(role=Role.VIEWER)
    headers = {"Authorization": f"Bearer {secret}"}
    assert Client().get("/api/v1/versions", headers=headers).status_code == 200
    assert Client().post("/api/v1/families", headers=headers).status_code == 403
