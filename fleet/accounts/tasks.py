from __future__ import annotations

from celery import shared_task
from django.core.management import call_command
from django.utils import timezone

from fleet.accounts import throttling


@shared_task
def tidy_accounts() -> None:
    """Removes counts and sessions that nothing looks at any more. Repeating it does no harm."""
    throttling.forget_old(now=timezone.now())
    call_command("clearsessions")
