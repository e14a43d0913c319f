from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.db import models


class AuditEntry(models.Model):
    """Who did what, when, to which object, with before and after. A trigger refuses UPDATE and DELETE."""

    at = models.DateTimeField(auto_now_add=True, db_index=True)
    # Names as text: the entry outlives the account.
    actor = models.CharField(max_length=150)
    action = models.CharField(max_length=64)
    object_type = models.CharField(max_length=64)
    object_id = models.CharField(max_length=64)
    before = models.JSONField(null=True)
    after = models.JSONField(null=True)

    class Meta:
        indexes = [models.Index(fields=["object_type", "object_id", "-id"], name="audit_by_object")]
        verbose_name_plural = "audit entries"

    def __str__(self) -> str:
        return f"{self.actor} {self.action} {self.object_type} {self.object_id}"


def record(
    *,
    actor: str,
    action: str,
    subject: models.Model,
    before: dict[str, Any] | None = None,
    after: dict[str, Any] | None = None,
) -> AuditEntry:
    """Writes within the caller's transaction, so that an action and its entry stand or fall together."""
    return AuditEntry.objects.create(
        actor=actor,
        action=action,
        object_type=subject._meta.label_lower,
        object_id=str(subject.pk),
        before=before,
        after=after,
    )


Change = tuple[models.Model, dict[str, Any] | None, dict[str, Any] | None]


def record_many(*, actor: str, action: str, changes: Iterable[Change]) -> None:
    """One entry for each (subject, before, after), as `record` writes them; one statement a thousand."""
    AuditEntry.objects.bulk_create(
        (
            AuditEntry(
                actor=actor,
                action=action,
                object_type=subject._meta.label_lower,
                object_id=str(subject.pk),
                before=before,
                after=after,
            )
            for subject, before, after in changes
        ),
        batch_size=1000,
    )
