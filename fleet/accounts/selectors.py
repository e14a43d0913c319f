"""Reading accounts."""

from __future__ import annotations

from django.db.models import Count, Q, QuerySet

from fleet.accounts.models import ApiToken, User

PAGE = 100


def users(*, after: str = "", limit: int = PAGE) -> list[User]:
    """By name, each with `live_tokens`, how many of its tokens are not revoked."""
    live = Count("tokens", filter=Q(tokens__revoked_at__isnull=True))
    return list(User.objects.filter(username__gt=after).annotate(live_tokens=live).order_by("username")[:limit])


def tokens(*, user: User | None, before: int | None = None, limit: int = PAGE) -> list[ApiToken]:
    """Newest first; everybody's where `user` is None."""
    rows: QuerySet[ApiToken] = ApiToken.objects.select_related("user").order_by("-pk")
    rows = rows.filter(user=user) if user else rows
    return list((rows.filter(pk__lt=before) if before else rows)[:limit])
