"""What a wake-up makes a worker do."""

from __future__ import annotations

from datetime import datetime

import structlog

from updates.campaigns.engine import due_campaigns, tick
from updates.campaigns.ingest import drain
from updates.campaigns.plan import refresh_plan
from updates.campaigns.rollback import start_when_planned
from updates.models import Campaign, CampaignKind
from updates.states import CampaignState

log = structlog.get_logger(__name__)


def tick_all(*, now: datetime) -> None:
    """Looks at each campaign that may have something due. One that fails must not keep the others waiting."""
    for campaign_id in due_campaigns(now):
        try:
            tick(campaign_id=campaign_id, now=now)
        except Exception:
            # Its transaction is undone as a whole; the next tick looks again. The log tells.
            log.exception("tick.failed", campaign_id=campaign_id)
    for campaign in Campaign.objects.filter(state=CampaignState.DRAFT, plan__pending_patches__gt=0):
        if refresh_plan(campaign_id=campaign.pk) and campaign.kind == CampaignKind.ROLLBACK:
            campaign.refresh_from_db()
            start_when_planned(campaign, now=now)


def drain_all(*, now: datetime, batches: int = 50) -> int:
    """Drains until nothing is left, at most `batches` times: the next wake-up goes on."""
    total = 0
    for _ in range(batches):
        drained = drain(now=now)
        total += drained
        if not drained:
            break
    return total
