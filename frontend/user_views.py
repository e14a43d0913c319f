"""Users, their roles, and who is locked out. Admins only, but for the table of what each role may do."""

from __future__ import annotations

import secrets

from django.contrib import messages
from django.core.exceptions import ValidationError
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from fleet.accounts import selectors, services, throttling
from fleet.accounts.models import Role, Throttle, User
from fleet.accounts.permissions import PERMISSIONS, Scope, reaches
from frontend.access import demand, signed_in
from frontend.account_forms import RoleForm, UserForm
from frontend.account_views import token_state

LIMIT_WORDS = {
    "login-user": "log-in with this name from this address",
    "login-address": "every log-in from this address",
    "token-address": "unknown tokens from this address",
}


def one_time_password() -> str:
    """96 random bits, without signs that are mistaken for each other at a glance."""
    alphabet = "abcdefghjkmnpqrstuvwxyz23456789"
    return "-".join("".join(secrets.choice(alphabet) for _ in range(5)) for _ in range(4))


def _user(user_id: int) -> User:
    if (user := User.objects.filter(pk=user_id).first()) is None:
        raise Http404(f"No user {user_id}.")
    return user


@require_GET
@signed_in
def users(request: HttpRequest) -> HttpResponse:
    demand(request, Scope.ADMIN.role)
    rows = selectors.users(after=request.GET.get("after", "").replace("\x00", ""), limit=selectors.PAGE + 1)
    page = rows[: selectors.PAGE]
    locked = [(row, LIMIT_WORDS[row.rule]) for row in throttling.locked(now=timezone.now())[:50]]
    context = {
        "users": page,
        "next_after": page[-1].username if len(rows) > selectors.PAGE else None,
        "locked": locked,
    }
    return render(request, "frontend/users.html", context)


@never_cache
@require_http_methods(["GET", "POST"])
@signed_in
def new(request: HttpRequest) -> HttpResponse:
    demand(request, Scope.ADMIN.role)
    form = UserForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        password = one_time_password()
        try:
            made = services.create_user(
                username=form.cleaned_data["username"],
                password=password,
                role=form.cleaned_data["role"],
                must_change_password=True,
                actor=request.user.get_username(),
            )
        except ValidationError as error:
            form.add_error("username", " ".join(error.messages))
        else:
            return render(request, "frontend/user_password.html", {"user_shown": made, "password": password})
    return render(request, "frontend/user_new.html", {"form": form}, status=400 if form.errors else 200)


@require_GET
@signed_in
def user(request: HttpRequest, user_id: int) -> HttpResponse:
    demand(request, Scope.ADMIN.role)
    found = _user(user_id)
    context = {
        "user_shown": found,
        "form": RoleForm(initial={"role": found.role}),
        "tokens": [(token, token_state(token)) for token in selectors.tokens(user=found)],
    }
    return render(request, "frontend/user.html", context)


def _change(request: HttpRequest, user_id: int, *, role: str | None = None, active: bool | None = None) -> HttpResponse:
    _user(user_id)
    try:
        services.change_user(
            user_id=user_id, role=role, is_active=active, now=timezone.now(), actor=request.user.get_username()
        )
    except services.AccountRefused as refusal:
        messages.error(request, str(refusal))
    return redirect("user", user_id)


@require_POST
@signed_in
def role(request: HttpRequest, user_id: int) -> HttpResponse:
    demand(request, Scope.ADMIN.role)
    form = RoleForm(request.POST)
    if not form.is_valid():
        messages.error(request, f"role: use one of {', '.join(Role.values)}. Nothing was changed.")
        return redirect("user", user_id)
    return _change(request, user_id, role=form.cleaned_data["role"])


@require_POST
@signed_in
def activate(request: HttpRequest, user_id: int) -> HttpResponse:
    demand(request, Scope.ADMIN.role)
    return _change(request, user_id, active=True)


@require_POST
@signed_in
def deactivate(request: HttpRequest, user_id: int) -> HttpResponse:
    demand(request, Scope.ADMIN.role)
    return _change(request, user_id, active=False)


@never_cache
@require_POST
@signed_in
def reset_password(request: HttpRequest, user_id: int) -> HttpResponse:
    demand(request, Scope.ADMIN.role)
    password = one_time_password()
    changed = services.set_password(
        user=_user(user_id), password=password, must_change=True, actor=request.user.get_username()
    )
    return render(request, "frontend/user_password.html", {"user_shown": changed, "password": password})


@require_POST
@signed_in
def unlock(request: HttpRequest, throttle_id: int) -> HttpResponse:
    demand(request, Scope.ADMIN.role)
    if (throttle := Throttle.objects.filter(pk=throttle_id).first()) is not None:
        throttling.unlock(throttle=throttle, actor=request.user.get_username())
    return redirect("users")


@require_GET
@signed_in
def roles(request: HttpRequest) -> HttpResponse:
    rows = [
        (allowed, scope, [(role, reaches(role, permission.role)) for role in Role.values])
        for scope, permission in PERMISSIONS.items()
        for allowed in permission.allows
    ]
    return render(request, "frontend/roles.html", {"roles": [role.value for role in Role], "rows": rows})
