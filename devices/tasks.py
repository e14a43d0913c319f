"""Celery's view of devices: every task may run twice, late or not at all without harm."""

from __future__ import annotations

from celery import shared_task
from django.conf import settings
from django.utils import timezone

from fleet.partitions import drop_expired_partitions, make_partitions_ahead


@shared_task
def keep_partitions() -> None:
    """Hourly, from beat: never retried, the next hour does the same."""
    now = timezone.now()
    make_partitions_ahead(now=now)
    drop_expired_partitions(now=now, keep_days=settings.EVENT_RETENTION_DAYS)
