from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.db.models import Model, QuerySet
from django.http import HttpRequest
from django.utils import timezone

from fleet.accounts.models import ApiToken, Role, User
from fleet.accounts.services import revoke_token
from fleet.audit.models import record
from fleet.read_only import ReadOnly


@admin.register(User)
class UserAdmin(DjangoUserAdmin):
    list_display = ["username", "role", "is_active", "last_login"]
    list_filter = ["role", "is_active"]
    search_fields = ["username"]
    readonly_fields = ["last_login", "date_joined"]
    filter_horizontal = []
    # The role says all; Django's own groups and permissions decide nothing here.
    fieldsets = [(None, {"fields": ["username", "password", "role", "is_active", "last_login", "date_joined"]})]
    add_fieldsets = [(None, {"fields": ["username", "role", "usable_password", "password1", "password2"]})]

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Never: a user is made inactive, so that what they did keeps its author."""
        return False

    def save_model(self, request: HttpRequest, obj: User, form: Any, change: bool) -> None:
        before = User.objects.filter(pk=obj.pk).first()
        obj.is_staff = obj.is_superuser = obj.role == Role.ADMIN
        super().save_model(request, obj, form, change)
        record(
            actor=request.user.get_username(),
            action="user.changed" if change else "user.created",
            subject=obj,
            before={"role": before.role, "is_active": before.is_active} if before else None,
            after={"username": obj.username, "role": obj.role, "is_active": obj.is_active},
        )


@admin.register(ApiToken)
class ApiTokenAdmin(ReadOnly):
    list_display = ["name", "user", "role", "created_at", "expires_at", "last_used_at", "revoked_at"]
    list_select_related = ["user"]
    list_filter = ["role"]
    search_fields = ["name", "user__username"]
    exclude = ["token_hash"]
    actions = ["revoke"]

    def has_revoke_permission(self, request: HttpRequest) -> bool:
        return isinstance(request.user, User) and request.user.may(Role.ADMIN)

    @admin.action(description="Revoke", permissions=["revoke"])
    def revoke(self, request: HttpRequest, queryset: QuerySet[ApiToken]) -> None:
        actor, now = request.user.get_username(), timezone.now()
        revoked = sum(revoke_token(token=token, actor=actor, now=now) for token in queryset)
        self.message_user(request, f"{revoked} revoked, the others were before.", messages.SUCCESS)
