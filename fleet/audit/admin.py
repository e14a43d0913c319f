"""Admin pages that change rows: what they do stands in the audit log, with before and after."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import Model, QuerySet
from django.http import HttpRequest

from fleet.audit.models import record


def _values(row: Model) -> dict[str, Any]:
    """Of plain columns, as text where JSON has no type for them."""
    plain = (str, int, float, bool, list, dict, type(None))
    values = {field.attname: field.value_from_object(row) for field in row._meta.concrete_fields}
    return {name: value if isinstance(value, plain) else str(value) for name, value in values.items()}


class AuditedAdmin(admin.ModelAdmin):
    def save_model(self, request: HttpRequest, obj: Model, form: Any, change: bool) -> None:
        old = type(obj)._default_manager.filter(pk=obj.pk).first() if change else None
        super().save_model(request, obj, form, change)
        before, after = _values(old) if old else None, _values(obj)
        if before is not None:
            names = [name for name in after if before[name] != after[name]]
            before, after = {name: before[name] for name in names}, {name: after[name] for name in names}
        self._record(request, obj, "changed" if change else "created", before, after)

    def delete_model(self, request: HttpRequest, obj: Model) -> None:
        self._record(request, obj, "deleted", _values(obj), None)
        super().delete_model(request, obj)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        for row in queryset:
            self.delete_model(request, row)

    def _record(
        self, request: HttpRequest, row: Model, action: str, before: dict[str, Any] | None, after: dict[str, Any] | None
    ) -> None:
        kind = str(row._meta.verbose_name).replace(" ", "_")
        record(actor=request.user.get_username(), action=f"{kind}.{action}", subject=row, before=before, after=after)
