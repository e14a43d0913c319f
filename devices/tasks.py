"""Celery's view of devices: every task may run twice, late or not at all without harm."""

from __future__ import annotations

import time

from celery import shared_task
from django.conf import settings
from django.utils import timezone

from devices.links.lorawan import feeder, intake
from devices.links.lorawan.wake import send_wake_up
from fleet.partitions import drop_expired_partitions, make_partitions_ahead

# A run ends soon and goes to the end of the queue, so that reports are drained in between however much is heard.
RUN_S = 0.5


@shared_task
def keep_partitions() -> None:
    """Hourly, from beat: never retried, the next hour does the same."""
    now = timezone.now()
    make_partitions_ahead(now=now)
    drop_expired_partitions(now=now, keep_days=settings.EVENT_RETENTION_DAYS)
    intake.prune(now=now)


@shared_task
def feed_lorawan() -> None:
    """Each tick from beat, and woken by events: works off what ChirpStack posted, then fills the queues of nodes.

    Never retried: what failed is still due at the next tick.
    """
    until = time.monotonic() + RUN_S
    while intake.drain(now=timezone.now()) + feeder.feed(now=timezone.now()):
        if time.monotonic() > until:
            send_wake_up()
            return
