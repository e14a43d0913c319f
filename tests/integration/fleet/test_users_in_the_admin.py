"""The role alone says what a user may do; the admin keeps Django's own flags in step with it and writes it down."""

from __future__ import annotations

import pytest
from django.test import Client
from django.urls import reverse

from fleet.accounts.models import Role, User
from fleet.audit.models import AuditEntry
from tests import factories

pytestmark = pytest.mark.django_db
PASSWORD = "correct horse battery"


@pytest.fixture
def signed_in(client: Client) -> Client:
    client.force_login(factories.make_user(Role.ADMIN, is_staff=True, is_superuser=True))
    return client


def test_a_user_is_made_with_a_role(signed_in: Client) -> None:
    form = {
        "username": "mia",
        "role": "operator",
        "usable_password": "true",
        "password1": PASSWORD,
        "password2": PASSWORD,
    }
    assert signed_in.post(reverse("admin:accounts_user_add"), form).status_code == 302
    mia = User.objects.get(username="mia")
    assert (mia.role, mia.is_staff, mia.is_superuser, mia.check_password(PASSWORD)) == ("operator", False, False, True)
    assert AuditEntry.objects.get(action="user.created").after == {
        "username": "mia",
        "role": "operator",
        "is_active": True,
    }


@pytest.mark.parametrize(("before", "after"), [(Role.VIEWER, Role.ADMIN), (Role.ADMIN, Role.VIEWER)])
def test_a_changed_role_changes_what_the_user_may_do(signed_in: Client, before: Role, after: Role) -> None:
    user = factories.make_user(before, is_staff=before == Role.ADMIN, is_superuser=before == Role.ADMIN)
    form = {"username": user.username, "role": after.value, "is_active": "on"}
    assert signed_in.post(reverse("admin:accounts_user_change", args=[user.pk]), form).status_code == 302
    user.refresh_from_db()
    is_admin = after == Role.ADMIN
    assert (user.role, user.is_staff, user.is_superuser, user.may(Role.ADMIN)) == (after, is_admin, is_admin, is_admin)
    entry = AuditEntry.objects.get(action="user.changed")
    assert (entry.before, entry.after) == (
        {"role": before.value, "is_active": True},
        {"username": user.username, "role": after.value, "is_active": True},
    )


def test_a_user_is_never_deleted(signed_in: Client) -> None:
    user = factories.make_user()
    assert signed_in.post(reverse("admin:accounts_user_delete", args=[user.pk]), {"post": "yes"}).status_code == 403
    assert User.objects.filter(pk=user.pk).exists()


def test_the_list_shows_roles(signed_in: Client) -> None:
    factories.make_user(Role.APPROVER, username="ann")
    assert "Approver" in signed_in.get(reverse("admin:accounts_user_changelist")).content.decode()
