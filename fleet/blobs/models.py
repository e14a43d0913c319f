from __future__ import annotations

import hashlib

from django.db import models


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


def store(data: bytes) -> Blob:
    """Keeps the bytes once, however often they come; one row a digest, also when two processes store together."""
    digest = hashlib.sha256(data).hexdigest()
    Blob.objects.bulk_create([Blob(digest=digest, size=len(data), data=data)], ignore_conflicts=True)
    return Blob.objects.defer("data").get(digest=digest)


def load(digest: str) -> bytes:
    """Raises Blob.DoesNotExist."""
    return bytes(Blob.objects.only("data").get(digest=digest).data)
