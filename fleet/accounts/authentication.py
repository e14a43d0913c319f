"""Who calls the API, and whether they may."""

from __future__ import annotations

from datetime import timedelta

from django.http import HttpRequest
from django.utils import timezone
from ninja.errors import HttpError
from ninja.security import HttpBearer

from fleet.accounts.models import ApiToken, Role

_LAST_USED_EVERY = timedelta(minutes=1)


class BearerToken(HttpBearer):
    """RFC 6750. The token is left in `request.auth`; answers 401 without a live one, 403 where its role is too low."""

    def __init__(self, role: Role) -> None:
        super().__init__()
        self.role = role

    def authenticate(self, request: HttpRequest, token: str) -> ApiToken | None:
        now = timezone.now()
        found = ApiToken.objects.select_related("user").filter(token_hash=ApiToken.hash(token)).first()
        if found is None or not found.may(Role.VIEWER, now=now):
            return None
        if found.last_used_at is None or found.last_used_at < now - _LAST_USED_EVERY:
            ApiToken.objects.filter(pk=found.pk).update(last_used_at=now)
        if not found.may(self.role, now=now):
            raise HttpError(403, f"This needs the role {self.role.value}; the token has {found.role}.")
        return found


viewer, operator, approver = (BearerToken(role) for role in (Role.VIEWER, Role.OPERATOR, Role.APPROVER))


def actor_of(request: HttpRequest) -> str:
    """The name that the audit log keeps."""
    token: ApiToken = request.auth  # type: ignore[attr-defined]
    return f"{token.user.username} ({token.name})"[:150]
