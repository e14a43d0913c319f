"""Wake-ups: each looks at PostgreSQL for what is due, so any may be lost, doubled or late.

No retries: beat sends the next one soon, and what failed is still due then.
"""

from __future__ import annotations

from celery import shared_task
from django.utils import timezone

from updates import builds, field_evidence, judging, patch_collection, services
from updates.campaigns import work
from updates.campaigns.reconcile import prove


@shared_task
def build_due() -> None:
    builds.build_due(timezone.now(), limit=1)
    judging.judge_due(timezone.now(), limit=1)


@shared_task
def build_patches_due() -> None:
    services.build_patches_due(timezone.now(), limit=20)


@shared_task
def collect_patches() -> None:
    patch_collection.collect(now=timezone.now())


@shared_task
def gather_field_evidence() -> None:
    field_evidence.gather(now=timezone.now())


@shared_task
def tick_campaigns() -> None:
    work.tick_all(now=timezone.now())


@shared_task
def reconcile_books() -> None:
    prove(now=timezone.now())


@shared_task
def drain_link_events() -> None:
    work.drain_all(now=timezone.now())
