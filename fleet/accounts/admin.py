from __future__ import annotations

from django.contrib import admin

from fleet.accounts.models import ApiToken, User
from fleet.read_only import ReadOnly

# Read only: the dashboard's screens change accounts, by services that guard the last admin and keep the audit log.


@admin.register(User)
class UserAdmin(ReadOnly):
    list_display = ["username", "role", "is_active", "last_login"]
    list_filter = ["role", "is_active"]
    search_fields = ["username"]
    fields = ["username", "role", "is_active", "last_login", "date_joined"]


@admin.register(ApiToken)
class ApiTokenAdmin(ReadOnly):
    list_display = ["name", "user", "scopes", "created_at", "expires_at", "last_used_at", "revoked_at"]
    list_select_related = ["user"]
    search_fields = ["name", "user__username"]
    exclude = ["token_hash"]
