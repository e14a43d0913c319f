from __future__ import annotations

from django.apps import apps
from django.contrib import admin

from fleet.accounts.models import ApiToken, User
from fleet.read_only import ReadOnly

# Read only: the dashboard's screens change accounts, by services that guard the last admin and keep the audit log.

# Single sign-on is set by the environment; allauth's tables hold who is linked, and nothing to edit.
for label in ("account", "socialaccount"):
    for model in apps.get_app_config(label).get_models():
        if admin.site.is_registered(model):
            admin.site.unregister(model)


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
