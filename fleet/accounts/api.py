"""REST: the tokens of whoever calls. A token makes no token that may do more than itself."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated

from django.http import HttpRequest
from django.shortcuts import get_object_or_404
from django.utils import timezone
from ninja import Field, Router, Schema, Status
from ninja.errors import HttpError
from pydantic import ConfigDict

from fleet.accounts.authentication import actor_of, token_of, viewer
from fleet.accounts.models import ApiToken
from fleet.accounts.permissions import Scope
from fleet.accounts.services import issue_token, revoke_token
from fleet.clock import Moment

router = Router(tags=["tokens"])
Id = Annotated[int, Field(ge=1, le=2**63 - 1)]
LONGEST = timedelta(days=3650)


class TokenIn(Schema):
    """expires_at carries its zone; without it the token never expires."""

    model_config = ConfigDict(extra="forbid")
    name: str = Field(min_length=1, max_length=100, pattern=r"^[^\x00]*$")
    scopes: list[Scope] = Field(min_length=1, max_length=len(Scope))
    expires_at: Moment | None = None


class TokenOut(Schema):
    id: int
    name: str
    scopes: list[str]
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    revoked_at: datetime | None


class NewTokenOut(TokenOut):
    """secret: shown this once; only its hash is kept."""

    secret: str


@router.get("", response=list[TokenOut], auth=viewer)
def list_tokens(
    request: HttpRequest, before: Id | None = None, limit: Annotated[int, Field(ge=1, le=500)] = 100
) -> object:
    """One's own, newest first; send the last id as `before` for the next page."""
    tokens = token_of(request).user.tokens.order_by("-pk")
    return tokens.filter(pk__lt=before)[:limit] if before else tokens[:limit]


@router.post("", response={201: NewTokenOut}, auth=viewer)
def create_token(request: HttpRequest, body: TokenIn) -> Status[dict[str, object]]:
    mine, now = token_of(request), timezone.now()
    for scope in body.scopes:
        if not mine.may(scope, now=now):
            raise HttpError(403, f"scopes: this token may not {scope.value} itself, so it cannot pass that on.")
    latest = min(mine.expires_at or now + LONGEST, now + LONGEST)
    if body.expires_at is not None and not now < body.expires_at <= latest:
        raise HttpError(422, f"expires_at: use a time after {now:%Y-%m-%dT%H:%MZ} and until {latest:%Y-%m-%dT%H:%MZ}.")
    made, secret = issue_token(
        user=mine.user,
        name=body.name,
        scopes=body.scopes,
        # A token that ends passes that on.
        expires_at=body.expires_at or mine.expires_at,
        actor=actor_of(request),
    )
    return Status(201, {name: getattr(made, name) for name in TokenOut.model_fields} | {"secret": secret})


@router.delete("/{token_id}", response={204: None}, auth=viewer)
def revoke(request: HttpRequest, token_id: Id) -> Status[None]:
    """At once and for good; a second time changes nothing."""
    token = get_object_or_404(ApiToken, pk=token_id, user=token_of(request).user)
    revoke_token(token=token, actor=actor_of(request), now=timezone.now())
    return Status(204, None)
