"""Users, and bearer tokens for machines."""

from __future__ import annotations

from datetime import datetime

from django.contrib.auth.password_validation import validate_password
from django.db import transaction

from fleet.accounts.models import ApiToken, Role, User
from fleet.audit.models import record


@transaction.atomic
def create_user(*, username: str, password: str, role: str = Role.VIEWER, actor: str) -> User:
    """Raises django's ValidationError for a bad name or role, a known name, or a password that is too weak."""
    user = User(username=username, role=role, is_staff=role == Role.ADMIN, is_superuser=role == Role.ADMIN)
    user.set_password(password)
    user.full_clean()
    validate_password(password, user)
    user.save()
    record(actor=actor, action="user.created", subject=user, after={"username": username, "role": role})
    return user


@transaction.atomic
def issue_token(
    *, user: User, name: str, role: str = Role.OPERATOR, expires_at: datetime | None = None, actor: str
) -> tuple[ApiToken, str]:
    """The token and its secret, which can be read this once only. It never reaches beyond its user's role."""
    if role not in Role.values:
        raise ValueError(f"role: {role!r} is unknown, use one of {', '.join(Role.values)}")
    token, secret = ApiToken.issue(user=user, name=name, role=role, expires_at=expires_at)
    record(actor=actor, action="token.issued", subject=token, after={"name": name, "role": role})
    return token, secret


@transaction.atomic
def revoke_token(*, token: ApiToken, actor: str, now: datetime) -> bool:
    """Whether it still was valid: a second revocation changes nothing."""
    if not ApiToken.objects.filter(pk=token.pk, revoked_at__isnull=True).update(revoked_at=now):
        return False
    record(actor=actor, action="token.revoked", subject=token)
    return True
