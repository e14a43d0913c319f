from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from django.test import Client

from fleet.accounts.models import ApiToken, Role, User
from fleet.accounts.permissions import PERMISSIONS
from fleet.audit.models import AuditEntry
from tests import factories
from tests.integration.frontend.conftest import HOSTILE

pytestmark = pytest.mark.django_db
SignIn = Callable[[Role], Client]


def test_a_new_users_password_is_shown_once_and_opens_one_page_only(sign_in: SignIn) -> None:
    page = sign_in(Role.ADMIN).post("/users/new/", {"username": "mia", "role": "operator"})
    shown = re.search(r'id="password">([^<]+)<', page.content.decode())
    mia = User.objects.get(username="mia")
    assert shown
    assert "no-store" in page["Cache-Control"]
    assert (mia.role, mia.must_change_password, mia.check_password(shown[1])) == ("operator", True, True)
    assert shown[1] not in str(list(AuditEntry.objects.values()))
    own = Client()
    assert own.post("/login/", {"username": "mia", "password": shown[1]}).status_code == 302
    assert own.get("/")["Location"] == "/account/"


@pytest.mark.parametrize(
    ("form", "words"),
    [
        ({"username": "taken", "role": "viewer"}, "“taken” is taken. Choose another name."),
        ({"username": "a b", "role": "viewer"}, "Enter a valid username"),
        ({"username": "mia", "role": "king"}, "king is not one of the available choices"),
    ],
)
def test_a_bad_user_is_refused_by_field(sign_in: SignIn, form: dict[str, str], words: str) -> None:
    factories.make_user(username="taken")
    response = sign_in(Role.ADMIN).post("/users/new/", form)
    assert response.status_code == 400
    assert words in response.content.decode()
    assert not User.objects.filter(username="mia").exists()


def test_a_role_is_given_and_the_last_admin_refused_in_words(sign_in: SignIn) -> None:
    client = sign_in(Role.ADMIN)
    admin, user = User.objects.get(), factories.make_user(Role.VIEWER)
    client.post(f"/users/{user.pk}/role/", {"role": "approver"})
    assert User.objects.get(pk=user.pk).role == "approver"
    page = client.post(f"/users/{admin.pk}/role/", {"role": "viewer"}, follow=True).content.decode()
    assert "is the last active admin. Make another user admin first." in page
    page = client.post(f"/users/{admin.pk}/deactivate/", follow=True).content.decode()
    assert "is the last active admin" in page
    assert User.objects.get(pk=admin.pk).may(Role.ADMIN)


def test_an_admin_resets_a_password_that_must_be_changed_then(sign_in: SignIn) -> None:
    user = factories.make_user(Role.VIEWER)
    page = sign_in(Role.ADMIN).post(f"/users/{user.pk}/password/").content.decode()
    shown = re.search(r'id="password">([^<]+)<', page)
    user.refresh_from_db()
    assert shown
    assert user.check_password(shown[1])
    assert user.must_change_password
    assert AuditEntry.objects.get(action="user.password_changed").object_id == str(user.pk)


@pytest.mark.parametrize(
    ("form", "words"),
    [
        ({"current": "wrong", "new": "another long password", "again": "another long password"}, "not your present"),
        ({"current": factories.PASSWORD, "new": "short", "again": "short"}, "too short"),
        ({"current": factories.PASSWORD, "new": "another long password", "again": "yet another one"}, "differ"),
        ({"current": factories.PASSWORD, "new": factories.PASSWORD, "again": factories.PASSWORD}, "Choose another"),
    ],
)
def test_a_bad_new_password_is_refused_by_field(sign_in: SignIn, form: dict[str, str], words: str) -> None:
    response = sign_in(Role.VIEWER).post("/account/", form)
    assert response.status_code == 400
    assert words in response.content.decode()
    assert User.objects.get().check_password(factories.PASSWORD)


def test_a_token_is_shown_once_works_and_is_revoked(sign_in: SignIn) -> None:
    client = sign_in(Role.OPERATOR)
    page = client.post("/account/tokens/", {"name": HOSTILE, "scopes": ["read", "nodes"], "days": "30"})
    shown = re.search(r'id="secret">(mf_[^<]+)<', page.content.decode())
    token = ApiToken.objects.get()
    assert shown
    assert "no-store" in page["Cache-Control"]
    assert HOSTILE not in page.content.decode()
    assert token.scopes == ["read", "nodes"]
    assert token.expires_at is not None
    assert Client().get("/api/v1/nodes", headers={"Authorization": f"Bearer {shown[1]}"}).status_code == 200
    assert shown[1] not in client.get("/account/tokens/").content.decode()
    client.post(f"/account/tokens/{token.pk}/revoke/")
    assert "Revoked" in client.get("/account/tokens/").content.decode()
    assert Client().get("/api/v1/nodes", headers={"Authorization": f"Bearer {shown[1]}"}).status_code == 401


@pytest.mark.parametrize(
    ("form", "field"),
    [
        ({"name": "x", "scopes": ["approve"]}, "Select a valid choice"),
        ({"name": "x"}, "This field is required"),
        ({"name": "", "scopes": ["read"]}, "This field is required"),
        ({"name": "x", "scopes": ["read"], "days": "0"}, "greater than or equal to 1"),
    ],
)
def test_a_bad_token_is_refused_by_field(sign_in: SignIn, form: dict[str, object], field: str) -> None:
    response = sign_in(Role.OPERATOR).post("/account/tokens/", form)
    assert response.status_code == 400
    assert field in response.content.decode()
    assert not ApiToken.objects.exists()


def test_only_admins_see_and_revoke_the_tokens_of_others(sign_in: SignIn) -> None:
    other, _ = ApiToken.issue(user=factories.make_user(), name="their-token", scopes=["read"])
    client = sign_in(Role.APPROVER)
    assert "their-token" not in client.get("/account/tokens/?of=all").content.decode()
    assert client.post(f"/account/tokens/{other.pk}/revoke/").status_code == 404
    client = sign_in(Role.ADMIN)
    assert "their-token" in client.get("/account/tokens/?of=all").content.decode()
    client.post(f"/account/tokens/{other.pk}/revoke/", {"of": "all"})
    other.refresh_from_db()
    assert other.revoked_at is not None


def test_the_page_of_roles_says_all_that_the_one_table_says(sign_in: SignIn) -> None:
    page = sign_in(Role.VIEWER).get("/users/roles/").content.decode()
    for permission in PERMISSIONS.values():
        for words in permission.allows:
            assert words.replace("'", "&#x27;") in page
    first, last = (page[page.index(words) :] for words in ("See nodes", "Make, change"))
    assert first[: first.index("</tr>")].count(">yes<") == 4
    assert last[: last.index("</tr>")].count(">yes<") == 1


def test_a_list_of_users_goes_on_by_name(sign_in: SignIn, monkeypatch: pytest.MonkeyPatch) -> None:
    from fleet.accounts import selectors

    monkeypatch.setattr(selectors, "PAGE", 2)
    for name in ("bob", "cyd", "dan"):
        factories.make_user(username=name)
    client = sign_in(Role.ADMIN)
    assert '?after=bob"' in client.get("/users/").content.decode()
    page = client.get("/users/?after=bob").content.decode()
    assert ">cyd<" in page
    assert ">dan<" in page
    assert ">bob<" not in page
