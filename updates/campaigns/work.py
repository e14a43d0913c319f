"""What a wake-up makes a worker do."""

from __future__ import annotations

from datetime import datetime

import structlog
from django.db import Error

from updates.campaigns.engine import due_campaigns, tick
from updates.campaigns.ingest import drain
from updates.campaigns.plan import refresh_plan
from updates.models import Campaign
from updates.states import CampaignState

log = structlog.get_logger(__name__)


def tick_all(*, now: datetime) -> None:
    """Looks at each campaign that may have something due. One that fails must not keep the others waiting."""
    for campaign_id in due_campaigns():
        try:
            tick(campaign_id=campaign_id, now=now)
        except Error:
            # A lost connection, or a node that another campaign took in between: the next tick looks again.
            log.exception("tick.failed", campaign_id=campaign_id)
    drafts = Campaign.objects.filter(state=CampaignState.DRAFT, plan__pending_patches__gt=0)
    for campaign_id in drafts.values_list("pk", flat=True):
        refresh_plan(campaign_id=campaign_id)


def drain_all(*, now: datetime, batches: int = 50) -> int:
    """Drains until nothing is left, at most `batches` times: the next wake-up goes on."""
    total = 0
    for _ in range(batches):
        drained = drain(now=now)
        total += drained
        if not drained:
            break
    return total
