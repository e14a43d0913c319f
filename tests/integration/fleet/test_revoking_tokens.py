"""A token ends by command, once, and the audit log says by whom."""

from __future__ import annotations

from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import reverse

from fleet.accounts.models import ApiToken, Role, User
from fleet.audit.models import AuditEntry
from tests import factories

pytestmark = pytest.mark.django_db
TOKENS = "admin:accounts_apitoken_changelist"


@pytest.fixture
def administrator() -> User:
    return factories.make_user(Role.ADMIN, is_staff=True, is_superuser=True)


@pytest.fixture
def signed_in(client: Client, administrator: User) -> Client:
    client.force_login(administrator)
    return client


@pytest.fixture
def token(administrator: User) -> ApiToken:
    return ApiToken.issue(user=administrator, name="build server", scopes=["read", "upload"])[0]


def is_revoked(token: ApiToken) -> bool:
    token.refresh_from_db()
    return token.revoked_at is not None


def test_a_token_is_revoked_by_name(token: ApiToken) -> None:
    call_command("revoke_token", "build server", stdout=StringIO())
    assert is_revoked(token)
    entry = AuditEntry.objects.get(action="token.revoked")
    assert (entry.object_id, entry.actor) == (str(token.pk), "manage.py revoke_token")


def test_a_token_is_revoked_by_number(token: ApiToken) -> None:
    call_command("revoke_token", str(token.pk), stdout=StringIO())
    assert is_revoked(token)


def test_a_name_of_two_tokens_revokes_neither_and_gives_their_numbers(token: ApiToken) -> None:
    other = ApiToken.issue(user=factories.make_user(), name=token.name, scopes=["read"])[0]
    with pytest.raises(CommandError, match=rf"{token.pk} \(of .*{other.pk} \(of "):
        call_command("revoke_token", token.name)
    assert not is_revoked(token)
    assert not is_revoked(other)


@pytest.mark.parametrize("given", ["unknown", "999999999", "build server"])
def test_an_unknown_or_revoked_token_is_an_error(token: ApiToken, given: str) -> None:
    call_command("revoke_token", str(token.pk), stdout=StringIO())
    with pytest.raises(CommandError, match=f"name or number {given}"):
        call_command("revoke_token", given)


def test_no_admin_page_shows_a_tokens_hash(signed_in: Client, token: ApiToken) -> None:
    for address in (reverse(TOKENS), reverse("admin:accounts_apitoken_change", args=[token.pk])):
        page = signed_in.get(address)
        assert page.status_code == 200
        assert token.name in page.content.decode()
        assert token.token_hash not in page.content.decode()
