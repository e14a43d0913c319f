"""What the product knows of itself: which processes live, when recurring work last ran, how often things happened.

In PostgreSQL, because each process may be asked and none sees the others.
"""

from __future__ import annotations

from django.db import models


class ProcessKind(models.TextChoices):
    WEB = "web", "web"
    WORKER = "worker", "worker"
    BEAT = "beat", "beat"
    GATEWAY = "gateway", "gateway"


class Heartbeat(models.Model):
    """One process. A clean end removes the row; a killed process leaves it, and its age tells."""

    kind = models.CharField(max_length=16, choices=ProcessKind.choices)
    name = models.CharField(
        max_length=100, help_text="tells it from others of its kind: host and process, or node name"
    )
    serves = models.CharField(max_length=64, blank=True, help_text="the queue of a worker, the link of a gateway")
    started_at = models.DateTimeField()
    beat_at = models.DateTimeField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["kind", "name"], name="heartbeat_once_a_process"),
            models.CheckConstraint(condition=models.Q(kind__in=ProcessKind.values), name="heartbeat_kind_is_known"),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


class LastRun(models.Model):
    """When recurring work last ended, and how long it took."""

    name = models.CharField(max_length=64, primary_key=True)
    at = models.DateTimeField()
    duration_s = models.FloatField()

    def __str__(self) -> str:
        return f"{self.name} {self.at:%Y-%m-%d %H:%M:%S}"


class Count(models.Model):
    """A counter that only rises: `name` and up to two labels. Written in the transaction of what it counts."""

    name = models.CharField(max_length=32)
    first = models.CharField(max_length=64, blank=True)
    second = models.CharField(max_length=64, blank=True)
    value = models.FloatField(default=0)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["name", "first", "second"], name="count_once_a_label"),
            models.CheckConstraint(condition=models.Q(value__gte=0), name="count_not_negative"),
        ]

    def __str__(self) -> str:
        return f"{self.name} {self.first} {self.second}: {self.value:g}"
