"""Wake-ups: each looks at PostgreSQL for what is due, so any may be lost, doubled or late. None retries: beat does."""

from __future__ import annotations

from celery import shared_task
from django.utils import timezone

from updates import builds, services


@shared_task
def build_due() -> None:
    builds.build_due(timezone.now(), limit=1)


@shared_task
def build_patches_due() -> None:
    services.build_patches_due(timezone.now(), limit=20)
