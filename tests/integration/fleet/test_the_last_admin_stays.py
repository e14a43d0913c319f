"""Nobody can shut the last admin out, not even two admins who do it to each other at the same moment."""

from __future__ import annotations

import pytest
from django.utils import timezone

from fleet.accounts.models import ApiToken, Role, User
from fleet.accounts.services import AccountRefused, change_user
from fleet.audit.models import AuditEntry
from tests import factories
from tests.integration.domain.race import race

CHANGES = [{"role": "viewer"}, {"is_active": False}]


def change(user: User, **what: object) -> User:
    return change_user(user_id=user.pk, now=timezone.now(), actor="test", **what)  # type: ignore[arg-type]


def active_admins() -> int:
    return User.objects.filter(role=Role.ADMIN, is_active=True).count()


@pytest.mark.django_db
@pytest.mark.parametrize("what", CHANGES)
def test_the_last_admin_is_neither_demoted_nor_deactivated(what: dict[str, object]) -> None:
    last = factories.make_user(Role.ADMIN)
    factories.make_user(Role.ADMIN, is_active=False)
    with pytest.raises(AccountRefused, match="last active admin"):
        change(last, **what)
    assert active_admins() == 1
    assert not AuditEntry.objects.exists()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("first", CHANGES)
@pytest.mark.parametrize("second", CHANGES)
def test_of_two_admins_who_oust_each_other_at_once_one_stays(
    first: dict[str, object], second: dict[str, object]
) -> None:
    ann, bob = factories.make_user(Role.ADMIN), factories.make_user(Role.ADMIN)
    outcome = race(lambda: change(ann, **first), lambda: change(bob, **second))
    assert outcome.waited
    assert isinstance(outcome.error, AccountRefused)
    assert active_admins() == 1


@pytest.mark.django_db
def test_a_change_says_before_and_after_and_keeps_djangos_flags_in_step() -> None:
    factories.make_user(Role.ADMIN)
    user = factories.make_user(Role.VIEWER, username="mia")
    change(user, role="admin")
    user.refresh_from_db()
    assert (user.role, user.is_staff, user.is_superuser) == ("admin", True, True)
    entry = AuditEntry.objects.get(action="user.changed")
    assert (entry.before, entry.after) == (
        {"username": "mia", "role": "viewer", "is_active": True},
        {"username": "mia", "role": "admin", "is_active": True},
    )
    change(user, role="viewer")
    user.refresh_from_db()
    assert (user.is_staff, user.is_superuser, user.may(Role.ADMIN)) == (False, False, False)


@pytest.mark.django_db
def test_deactivating_revokes_tokens_for_good() -> None:
    factories.make_user(Role.ADMIN)
    user = factories.make_user(Role.OPERATOR)
    token, _ = ApiToken.issue(user=user, name="ci", scopes=["read"])
    change(user, is_active=False)
    change(user, is_active=True)
    token.refresh_from_db()
    assert token.revoked_at is not None
    assert AuditEntry.objects.filter(action="token.revoked", object_id=str(token.pk)).count() == 1


@pytest.mark.django_db
def test_changing_nothing_writes_nothing() -> None:
    user = factories.make_user(Role.VIEWER)
    change(user, role="viewer")
    assert not AuditEntry.objects.exists()
