"""How long a log-in lasts, what is written down about it, and the pages that it must go through first."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from django.conf import settings
from django.contrib.auth import logout
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, resolve_url
from django.utils import timezone

from fleet.accounts.addresses import client_address
from fleet.accounts.models import User
from fleet.audit.models import record

_BEGAN, _SEEN = "began_at", "seen_at"
_SEEN_EVERY = timedelta(minutes=1)
# What a user who must choose a password can still reach.
_OPEN = frozenset({"account", "logout", "login"})


def start_clocks(sender: object, request: HttpRequest, **kwargs: object) -> None:
    """With the log-in itself, so that the first page after it writes nothing."""
    request.session[_BEGAN] = request.session[_SEEN] = timezone.now().isoformat()


def began(request: HttpRequest, user: User, *, by: str) -> None:
    """Right after django's login(): by says how, such as `password`."""
    record(actor=user.username, action="login", subject=user, after={"by": by, "address": client_address(request)})


def end(request: HttpRequest, *, why: str) -> None:
    user = request.user
    logout(request)
    if isinstance(user, User):
        after = {"why": why, "address": client_address(request)}
        record(actor=user.username, action="logout", subject=user, after=after)


class SessionMiddleware:
    """Ends a session that was idle for SESSION_IDLE_MINUTES or is SESSION_MAXIMUM_HOURS old.

    Pages poll by themselves: a poll keeps no session alive, or an abandoned screen would stay open all day.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if not request.path.startswith("/api/") and request.user.is_authenticated:
            if why := self._outlived(request, timezone.now()):
                end(request, why=why)
            elif refused := self._choose_password_first(request):
                return refused
        return self.get_response(request)

    def _outlived(self, request: HttpRequest, now: datetime) -> str:
        session, text = request.session, now.isoformat()
        if _BEGAN not in session:
            session[_BEGAN] = session[_SEEN] = text
        seen = datetime.fromisoformat(session[_SEEN])
        if now - datetime.fromisoformat(session[_BEGAN]) >= timedelta(hours=settings.SESSION_MAXIMUM_HOURS):
            return "too old"
        if now - seen >= timedelta(minutes=settings.SESSION_IDLE_MINUTES):
            return "idle"
        if now - seen >= _SEEN_EVERY and "HX-Request" not in request.headers:
            session[_SEEN] = text
        return ""

    def _choose_password_first(self, request: HttpRequest) -> HttpResponse | None:
        user = request.user
        if not isinstance(user, User) or not user.must_change_password:
            return None
        account = resolve_url("account")
        if request.path in {resolve_url(name) for name in _OPEN}:
            return None
        if "HX-Request" in request.headers:
            response = HttpResponse()
            response["HX-Redirect"] = account
            return response
        return redirect(account)
