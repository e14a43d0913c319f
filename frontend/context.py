"""What every page of the dashboard shows around its content."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.http import HttpRequest
from django.utils import timezone

from fleet.accounts.models import Role
from fleet.accounts.permissions import Scope

# First word of an address' name to the section of the left rail that it belongs to.
SECTIONS = {
    "fleet": "fleet",
    "node": "nodes",
    "hardware": "hardware",
    "campaign": "campaigns",
    "version": "models",
    "patch": "patches",
    "server": "servers",
    "status": "status",
    "audit": "audit",
    "user": "users",
    "account": "account",
    "token": "account",
    "role": "account",
}


def shell(request: HttpRequest) -> dict[str, Any]:
    user: Any = getattr(request, "user", None)
    name = request.resolver_match.url_name or "" if request.resolver_match else ""
    known = bool(user and user.is_authenticated)
    return {
        "time_scale": settings.TIME_SCALE,
        "now": timezone.now(),
        "section": next((section for prefix, section in SECTIONS.items() if name.startswith(prefix)), ""),
        "may_operate": known and user.may(Role.OPERATOR),
        "may_approve": known and user.may(Role.APPROVER),
        "may_audit": known and user.may(Scope.AUDIT.role),
        "may_administer": known and user.may(Scope.ADMIN.role),
    }
