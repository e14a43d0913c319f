from __future__ import annotations

import hashlib
from collections.abc import Iterable

from django.db import DEFAULT_DB_ALIAS, connection, models, transaction


class Blob(models.Model):
    """Bytes by their SHA-256: uploads, images, patches. In PostgreSQL so that one backup holds all of the truth."""

    digest = models.CharField(max_length=64, primary_key=True)
    size = models.PositiveIntegerField(help_text="bytes")
    data = models.BinaryField()
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.CheckConstraint(condition=models.Q(digest__regex="^[0-9a-f]{64}$"), name="blob_digest_is_sha256"),
        ]

    def __str__(self) -> str:
        return f"{self.digest[:12]} ({self.size} B)"


@transaction.atomic
def store(data: bytes) -> Blob:
    """Keeps the bytes once, however often they come; one row a digest, also when two processes store together.

    Inside a transaction they are not collected before its end: refer to them in the same one.
    """
    digest = hashlib.sha256(data).hexdigest()
    while True:
        Blob.objects.bulk_create([Blob(digest=digest, size=len(data), data=data)], ignore_conflicts=True)
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1 FROM blobs_blob WHERE digest = %s FOR KEY SHARE", [digest])
            kept = cursor.fetchone()
        if kept:
            return Blob.objects.defer("data").get(digest=digest)
        # It was there and was collected between the two statements.


@transaction.atomic
def forget_unused(digests: Iterable[str]) -> int:
    """Deletes those of these blobs that no row refers to; returns the bytes that this freed.

    One that another transaction is storing or has just referred to is locked there, and is left to it.
    """
    locked = Blob.objects.select_for_update(skip_locked=True).filter(digest__in=list(digests)).order_by("digest")
    # Locked first, looked at next: a reference that was committed in between is seen by the second statement.
    unused = Blob.objects.filter(digest__in=list(locked.values_list("digest", flat=True)))
    for relation in Blob._meta.get_fields(include_hidden=True):
        if isinstance(relation, models.ManyToOneRel) and relation.related_model is not Blob:
            refers = relation.related_model._default_manager.filter(**{relation.field.name: models.OuterRef("pk")})
            unused = unused.exclude(models.Exists(refers))
    freed = dict(unused.values_list("digest", "size"))
    Blob.objects.filter(digest__in=freed)._raw_delete(using=DEFAULT_DB_ALIAS)
    return sum(freed.values())


def load(digest: str) -> bytes:
    """Raises Blob.DoesNotExist."""
    return bytes(Blob.objects.only("data").get(digest=digest).data)
