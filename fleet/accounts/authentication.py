"""Who calls the API, and whether they may."""

from __future__ import annotations

import math
from datetime import timedelta

from django.db.models import Q
from django.http import HttpRequest
from django.utils import timezone
from ninja.errors import HttpError
from ninja.security import HttpBearer

from fleet.accounts.addresses import client_address
from fleet.accounts.models import ApiToken
from fleet.accounts.permissions import Scope
from fleet.accounts.throttling import LockedOut, count_bad_token

_LAST_USED_EVERY = timedelta(minutes=1)


class TooManyBadTokens(Exception):
    """`retry_after_s`: when this address may try tokens again."""

    def __init__(self, retry_after_s: int) -> None:
        super().__init__(retry_after_s)
        self.retry_after_s = retry_after_s


class BearerToken(HttpBearer):
    """RFC 6750. Leaves the token in `request.auth`; answers 401 without a live one, 403 where it lacks a scope."""

    def __init__(self, *scopes: Scope) -> None:
        super().__init__()
        self.scopes = scopes

    def authenticate(self, request: HttpRequest, token: str) -> ApiToken | None:
        now = timezone.now()
        found = ApiToken.objects.select_related("user").filter(token_hash=ApiToken.hash(token)).first()
        if found is None or not found.is_live(now=now):
            try:
                count_bad_token(address=client_address(request), now=now)
            except LockedOut as lock:
                raise TooManyBadTokens(math.ceil((lock.until - now).total_seconds())) from lock
            return None
        due = Q(last_used_at__isnull=True) | Q(last_used_at__lt=now - _LAST_USED_EVERY)
        if found.last_used_at is None or found.last_used_at < now - _LAST_USED_EVERY:
            ApiToken.objects.filter(due, pk=found.pk).update(last_used_at=now)
        for scope in self.scopes:
            if not found.may(scope, now=now):
                has = ", ".join(found.scopes)
                raise HttpError(
                    403,
                    f"This needs the scope {scope.value} and the role {scope.role.value} or a higher one; "
                    f"the token has {has}, and its user is {found.user.role}.",
                )
        return found


viewer = BearerToken(Scope.READ)
node_keeper = BearerToken(Scope.NODES)
uploader = BearerToken(Scope.UPLOAD)
planner = BearerToken(Scope.CAMPAIGNS)
# For what touches more than one of them.
operator = BearerToken(Scope.NODES, Scope.UPLOAD, Scope.CAMPAIGNS)
approver = BearerToken(Scope.APPROVE)
auditor = BearerToken(Scope.AUDIT)


def token_of(request: HttpRequest) -> ApiToken:
    token: ApiToken = request.auth  # type: ignore[attr-defined]
    return token


def actor_of(request: HttpRequest) -> str:
    """The name that the audit log keeps."""
    token = token_of(request)
    return f"{token.user.username} ({token.name})"[:150]
