"""Getting in and out."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.contrib.auth.forms import AuthenticationForm
from django.contrib.auth.views import LoginView, LogoutView
from django.http import HttpRequest, HttpResponse
from django.utils import timezone

from fleet.accounts import sessions, throttling
from fleet.accounts.addresses import client_address
from fleet.accounts.oidc import PROBLEMS


class Login(LoginView):
    template_name = "frontend/login.html"
    redirect_authenticated_user = True

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        return super().get_context_data(**kwargs) | {
            "oidc_name": settings.OIDC_NAME if settings.OIDC_ENABLED else "",
            "problem": PROBLEMS.get(self.request.GET.get("problem", "")),
        }

    def post(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        try:
            throttling.count_login(username=self._username, address=client_address(request), now=timezone.now())
        except throttling.LockedOut as lock:
            return self.render_to_response(self.get_context_data(form=self.get_form(), locked=lock.until), status=429)
        return super().post(request, *args, **kwargs)

    @property
    def _username(self) -> str:
        return self.request.POST.get("username", "").strip()

    def form_valid(self, form: AuthenticationForm) -> HttpResponse:
        throttling.login_succeeded(username=self._username, address=client_address(self.request))
        response = super().form_valid(form)
        sessions.began(self.request, form.get_user(), by="password")
        return response

    def form_invalid(self, form: AuthenticationForm) -> HttpResponse:
        address, now = client_address(self.request), timezone.now()
        locked = throttling.login_failed(username=self._username, address=address, now=now)
        status = 429 if locked else 400
        return self.render_to_response(self.get_context_data(form=form, locked=locked), status=status)


class Logout(LogoutView):
    def post(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        sessions.end(request, why="signed out")
        return super().post(request, *args, **kwargs)
