"""One's own account: password, sessions and tokens."""

from __future__ import annotations

from typing import cast

from django.contrib.auth import update_session_auth_hash
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render, resolve_url
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST

from fleet.accounts import selectors, services
from fleet.accounts.models import ApiToken, User
from fleet.accounts.permissions import Scope
from frontend import pages
from frontend.access import signed_in
from frontend.account_forms import PasswordForm, TokenForm


def _me(request: HttpRequest) -> User:
    return cast("User", request.user)


@require_http_methods(["GET", "POST"])
@signed_in
def account(request: HttpRequest) -> HttpResponse:
    me = _me(request)
    form = PasswordForm(me, request.POST or None)
    if request.method == "POST" and form.is_valid():
        services.set_password(user=me, password=form.cleaned_data["new"], must_change=False, actor=me.username)
        update_session_auth_hash(request, me)
        return redirect("account")
    return render(request, "frontend/account.html", {"form": form}, status=400 if form.errors else 200)


@require_POST
@signed_in
def end_sessions(request: HttpRequest) -> HttpResponse:
    """Everywhere but here."""
    me = _me(request)
    services.end_sessions(user=me, actor=me.username)
    update_session_auth_hash(request, me)
    return redirect("account")


@never_cache
@require_http_methods(["GET", "POST"])
@signed_in
def tokens(request: HttpRequest) -> HttpResponse:
    """The secret of a new token stands in the answer to the form alone; nothing keeps it for a second look."""
    me, now = _me(request), timezone.now()
    sees_all = me.may(Scope.ADMIN.role) and request.GET.get("of") == "all"
    form, secret = TokenForm(me, request.POST or None), ""
    if request.method == "POST" and form.is_valid():
        values = form.cleaned_data
        try:
            _, secret = services.issue_token(
                user=me,
                name=values["name"],
                scopes=values["scopes"],
                expires_at=form.expires_at(now),
                actor=me.username,
            )
            form = TokenForm(me)
        except services.AccountRefused as refusal:
            form.add_error(refusal.field, str(refusal))
    rows = selectors.tokens(
        user=None if sees_all else me, before=pages.key(request, "before"), limit=selectors.PAGE + 1
    )
    page = rows[: selectors.PAGE]
    context = {
        "form": form,
        "secret": secret,
        "tokens": [(token, token_state(token)) for token in page],
        "sees_all": sees_all,
        "next_before": page[-1].pk if len(rows) > selectors.PAGE else None,
    }
    return render(request, "frontend/tokens.html", context, status=400 if form.errors else 200)


def token_state(token: ApiToken) -> tuple[str, str, str]:
    """CSS class, icon and word."""
    if token.revoked_at:
        return "is-cancelled", "s-cancelled", "Revoked"
    if token.expires_at and token.expires_at <= timezone.now():
        return "is-cancelled", "i-clock", "Expired"
    return "is-confirmed", "s-confirmed", "Live"


@require_POST
@signed_in
def revoke_token(request: HttpRequest, token_id: int) -> HttpResponse:
    me = _me(request)
    token = ApiToken.objects.select_related("user").filter(pk=token_id).first()
    # Others' tokens do not exist for those who may not see them.
    if token is None or not (token.user == me or me.may(Scope.ADMIN.role)):
        raise Http404(f"No token {token_id}.")
    services.revoke_token(token=token, actor=me.username, now=timezone.now())
    back = resolve_url("tokens")
    return redirect(f"{back}?of=all" if request.POST.get("of") == "all" else back)
