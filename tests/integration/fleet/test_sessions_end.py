"""A session ends by idleness, by age, by deactivation and by a new password; a poll keeps none alive."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.test import Client
from django.utils import timezone

from fleet.accounts.models import Role, User
from fleet.accounts.services import change_user, set_password
from fleet.audit.models import AuditEntry
from tests import factories

pytestmark = pytest.mark.django_db


@pytest.fixture
def user() -> User:
    factories.make_user(Role.ADMIN)
    return factories.make_user(Role.OPERATOR)


@pytest.fixture
def signed_in(client: Client, user: User) -> Client:
    client.force_login(user)
    return client


def move_back(client: Client, key: str, **ago: float) -> None:
    session = client.session
    session[key] = (timezone.now() - timedelta(**ago)).isoformat()
    session.save()


def is_in(client: Client, **headers: str) -> bool:
    return client.get("/", headers=headers).status_code == 200


def test_a_session_that_was_idle_too_long_ends_and_that_is_written_down(signed_in: Client) -> None:
    move_back(signed_in, "seen_at", minutes=119)
    assert is_in(signed_in)
    move_back(signed_in, "seen_at", minutes=120)
    assert not is_in(signed_in)
    assert AuditEntry.objects.get(action="logout").after == {"why": "idle", "address": "127.0.0.1"}


def test_a_session_that_is_too_old_ends_though_it_was_in_use(signed_in: Client) -> None:
    move_back(signed_in, "began_at", hours=12)
    assert not is_in(signed_in)


def test_a_poll_keeps_no_session_alive_but_a_page_does(signed_in: Client) -> None:
    move_back(signed_in, "seen_at", minutes=100)
    before = signed_in.session["seen_at"]
    assert is_in(signed_in, **{"HX-Request": "true"})
    assert signed_in.session["seen_at"] == before
    assert is_in(signed_in)
    assert signed_in.session["seen_at"] > before


def test_deactivating_ends_sessions_for_good(signed_in: Client, user: User) -> None:
    change_user(user_id=user.pk, is_active=False, now=timezone.now(), actor="test")
    assert not is_in(signed_in)
    change_user(user_id=user.pk, is_active=True, now=timezone.now(), actor="test")
    assert not is_in(signed_in)


def test_a_new_role_ends_sessions(signed_in: Client, user: User) -> None:
    change_user(user_id=user.pk, role="viewer", now=timezone.now(), actor="test")
    assert not is_in(signed_in)


def test_a_password_that_an_admin_sets_ends_sessions(signed_in: Client, user: User) -> None:
    set_password(user=user, password="another long password", must_change=True, actor="test")
    assert not is_in(signed_in)


def test_ones_own_new_password_ends_the_other_sessions_only(signed_in: Client, user: User) -> None:
    elsewhere = Client()
    elsewhere.force_login(user)
    form = {"current": factories.PASSWORD, "new": "another long password", "again": "another long password"}
    assert signed_in.post("/account/", form).status_code == 302
    assert is_in(signed_in)
    assert not is_in(elsewhere)


def test_other_sessions_can_be_ended_from_here(signed_in: Client, user: User) -> None:
    elsewhere = Client()
    elsewhere.force_login(user)
    signed_in.post("/account/sessions/end/")
    assert is_in(signed_in)
    assert not is_in(elsewhere)


def test_signing_out_is_written_down(signed_in: Client, user: User) -> None:
    signed_in.post("/logout/")
    entry = AuditEntry.objects.get(action="logout")
    assert (entry.actor, entry.after["why"]) == (user.username, "signed out")  # type: ignore[index]
    assert not is_in(signed_in)


def test_a_given_password_must_be_changed_before_anything_else(client: Client) -> None:
    user = factories.make_user(Role.ADMIN, must_change_password=True, is_staff=True, is_superuser=True)
    client.force_login(user)
    for address in ("/", "/nodes/", "/users/", "/admin/", "/account/tokens/"):
        assert client.get(address)["Location"] == "/account/", address
    assert client.get("/", headers={"HX-Request": "true"})["HX-Redirect"] == "/account/"
    assert client.get("/account/").status_code == 200
    form = {"current": factories.PASSWORD, "new": "another long password", "again": "another long password"}
    client.post("/account/", form)
    assert is_in(client)


def test_pages_carry_headers_that_forbid_what_they_do_not_use(signed_in: Client) -> None:
    for address in ("/", "/login/", "/api/v1/docs", "/api/v1/nodes", "/admin/"):
        headers = signed_in.get(address).headers
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert "camera=()" in headers["Permissions-Policy"]
        assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
        assert headers["X-Content-Type-Options"] == "nosniff"


def test_djangos_admin_has_no_way_in_of_its_own(client: Client, db: None) -> None:
    assert client.get("/admin/login/?next=/admin/")["Location"] == "/login/?next=/admin/"
    assert client.get("/admin/password_change/")["Location"] == "/account/"
