"""Users, and bearer tokens for machines."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from django.contrib.auth.password_validation import validate_password
from django.db import transaction
from django.db.models import F

from fleet.accounts.models import ApiToken, Role, User
from fleet.accounts.permissions import Scope, scopes_of
from fleet.audit.models import record

MAXIMUM_LIVE_TOKENS = 100


class AccountRefused(Exception):
    """A change that is not made: `field` is the form's or request's, message and fix are sentences."""

    def __init__(self, field: str, message: str, fix: str) -> None:
        super().__init__(f"{message} {fix}")
        self.field, self.message, self.fix = field, message, fix


@transaction.atomic
def create_user(
    *, username: str, password: str | None, role: str = Role.VIEWER, must_change_password: bool = False, actor: str
) -> User:
    """Without a password the user can only come by single sign-on.

    Raises django's ValidationError for a bad name or role, a known name, or a password that is too weak.
    """
    user = User(username=username, role=role, must_change_password=must_change_password)
    _follow_role(user)
    user.set_password(password)
    user.full_clean()
    if password is not None:
        validate_password(password, user)
    user.save()
    record(actor=actor, action="user.created", subject=user, after=_seen(user))
    return user


@transaction.atomic
def change_user(
    *, user_id: int, role: str | None = None, is_active: bool | None = None, now: datetime, actor: str
) -> User:
    """Gives a role, or lets in and shuts out. Whoever is shut out loses all sessions and tokens at once and for good.

    Raises AccountRefused where no active admin would be left, User.DoesNotExist.
    """
    # Every change takes the admins first and in one order: of two that would each spare the other, one waits and sees.
    admins = list(User.objects.select_for_update().filter(role=Role.ADMIN, is_active=True).order_by("pk"))
    user = User.objects.select_for_update().get(pk=user_id)
    before = _seen(user)
    user.role = Role(role) if role is not None else user.role
    user.is_active = is_active if is_active is not None else user.is_active
    after = _seen(user)
    if after == before:
        return user
    stays_admin = user.role == Role.ADMIN and user.is_active
    if not stays_admin and [admin.pk for admin in admins] == [user.pk]:
        raise AccountRefused(
            "role" if user.is_active else "is_active",
            f"{user} is the last active admin.",
            "Make another user admin first.",
        )
    _follow_role(user)
    user.session_generation += 1
    user.save(update_fields=["role", "is_active", "is_staff", "is_superuser", "session_generation"])
    record(actor=actor, action="user.changed", subject=user, before=before, after=after)
    if not user.is_active:
        for token in user.tokens.filter(revoked_at__isnull=True):
            revoke_token(token=token, actor=actor, now=now)
    return user


@transaction.atomic
def set_password(*, user: User, password: str, must_change: bool, actor: str) -> User:
    """Ends every session of the user. Raises django's ValidationError where the password is too weak."""
    validate_password(password, user)
    User.objects.select_for_update().get(pk=user.pk)
    user.set_password(password)
    before, user.must_change_password = user.must_change_password, must_change
    user.save(update_fields=["password", "must_change_password"])
    record(
        actor=actor,
        action="user.password_changed",
        subject=user,
        before={"must_change_password": before},
        after={"must_change_password": must_change},
    )
    return user


@transaction.atomic
def end_sessions(*, user: User, actor: str) -> None:
    User.objects.filter(pk=user.pk).update(session_generation=F("session_generation") + 1)
    user.refresh_from_db(fields=["session_generation"])
    record(actor=actor, action="user.sessions_ended", subject=user)


@transaction.atomic
def issue_token(
    *,
    user: User,
    name: str,
    scopes: Iterable[str] | None = None,
    role: str = Role.OPERATOR,
    expires_at: datetime | None = None,
    actor: str,
) -> tuple[ApiToken, str]:
    """The token and its secret, which can be read this once only. It never reaches beyond its user's role.

    Without scopes it carries all of `role`. Raises ValueError for unknown ones, AccountRefused for too many tokens.
    """
    if role not in Role.values:
        raise ValueError(f"role: {role!r} is unknown, use one of {', '.join(Role.values)}")
    wanted = set(scopes) if scopes is not None else set(scopes_of(role))
    if unknown := wanted - set(Scope.values):
        raise ValueError(f"scopes: {', '.join(sorted(unknown))} is unknown, use {', '.join(Scope.values)}")
    if not wanted:
        raise ValueError(f"scopes: a token needs one at least: {', '.join(Scope.values)}")
    if user.tokens.filter(revoked_at__isnull=True).count() >= MAXIMUM_LIVE_TOKENS:
        raise AccountRefused("name", f"{user} has {MAXIMUM_LIVE_TOKENS} tokens.", "Revoke those that nothing uses.")
    ordered = [scope for scope in Scope.values if scope in wanted]
    token, secret = ApiToken.issue(user=user, name=name, scopes=ordered, expires_at=expires_at)
    after = {"name": name, "scopes": ordered, "expires_at": expires_at.isoformat() if expires_at else None}
    record(actor=actor, action="token.issued", subject=token, after=after)
    return token, secret


@transaction.atomic
def revoke_token(*, token: ApiToken, actor: str, now: datetime) -> bool:
    """Whether it still was valid: a second revocation changes nothing."""
    if not ApiToken.objects.filter(pk=token.pk, revoked_at__isnull=True).update(revoked_at=now):
        return False
    record(
        actor=actor,
        action="token.revoked",
        subject=token,
        before={"revoked_at": None},
        after={"revoked_at": now.isoformat()},
    )
    return True


def _follow_role(user: User) -> None:
    """Django's own flags follow the role, which alone decides."""
    user.is_staff = user.is_superuser = user.role == Role.ADMIN


def _seen(user: User) -> dict[str, Any]:
    return {"username": user.username, "role": str(user.role), "is_active": user.is_active}
