"""What a wake-up makes a worker do."""

from __future__ import annotations

import time
from datetime import datetime

import structlog
from django.utils import timezone

from fleet.operations.services import ran
from updates.campaigns.engine import due_campaigns, tick
from updates.campaigns.ingest import drain
from updates.campaigns.plan import refresh_plan
from updates.campaigns.rollback import start_when_planned
from updates.campaigns.runs import TICK, tick_of
from updates.models import Campaign, CampaignKind
from updates.states import CampaignState

log = structlog.get_logger(__name__)


def tick_all(*, now: datetime) -> None:
    """Looks at each campaign that may have something due. One that fails must not keep the others waiting."""
    took: dict[str, float] = {}
    began_all = time.monotonic()
    for campaign_id in due_campaigns(now):
        began = time.monotonic()
        with structlog.contextvars.bound_contextvars(campaign_id=campaign_id):
            try:
                if tick(campaign_id=campaign_id, now=now):
                    took[tick_of(campaign_id)] = time.monotonic() - began
                else:
                    log.info("tick.not-its-turn")
            except Exception:
                # Its transaction is undone as a whole; the next tick looks again. The log tells.
                log.exception("tick.failed")
    for campaign in Campaign.objects.filter(state=CampaignState.DRAFT, plan__pending_patches__gt=0):
        if refresh_plan(campaign_id=campaign.pk, now=now) and campaign.kind == CampaignKind.ROLLBACK:
            campaign.refresh_from_db()
            start_when_planned(campaign, now=now)
    ran(durations_s=took | {TICK: time.monotonic() - began_all}, now=timezone.now())


def drain_all(*, now: datetime, batches: int = 50) -> int:
    """Drains until nothing is left, at most `batches` times: the next wake-up goes on."""
    total = 0
    for _ in range(batches):
        drained = drain(now=now)
        total += drained
        if not drained:
            break
    return total
