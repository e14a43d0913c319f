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
    object_id = models.CharField(max_length=64, blank=True)
    # What the object was called then.
    object_name = models.CharField(max_length=200, blank=True)
    before = models.JSONField(null=True)
    after = models.JSONField(null=True)

    class Meta:
        indexes = [
            models.Index(fields=["object_type", "object_id", "-id"], name="audit_by_object"),
            models.Index(fields=["actor", "-id"], name="audit_by_actor"),
            models.Index(fields=["action", "-id"], name="audit_by_action"),
        ]
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
    """Writes within the caller's transaction, so that an action and its entry stand or fall together.

    An unsaved subject says what kind of thing was meant where none of that name exists.
    """
    entry = _entry(actor, action, subject, before, after)
    entry.save()
    return entry


Change = tuple[models.Model, dict[str, Any] | None, dict[str, Any] | None]


def record_many(*, actor: str, action: str, changes: Iterable[Change]) -> None:
    """One entry for each (subject, before, after), as `record` writes them; one statement a thousand."""
    entries = (_entry(actor, action, *change) for change in changes)
    AuditEntry.objects.bulk_create(entries, batch_size=1000)


def _entry(
    actor: str, action: str, subject: models.Model, before: dict[str, Any] | None, after: dict[str, Any] | None
) -> AuditEntry:
    saved = subject.pk is not None
    return AuditEntry(
        actor=actor[:150],
        action=action,
        object_type=subject._meta.label_lower,
        object_id=str(subject.pk) if saved else "",
        object_name=str(subject)[:200] if saved else "",
        before=before,
        after=after,
    )
