"""Going back, as a campaign like any other: a command where the previous slot is whole, else the reverse patch."""

from __future__ import annotations

from datetime import datetime

from django.db import transaction

from fleet.audit.models import record
from updates.campaigns.actions import ActionRefused, approve, end, start
from updates.campaigns.plan import Member, new_campaign, store_plan
from updates.models import Campaign, CampaignKind, Method, ModelImage, NodeUpdate
from updates.states import OPEN_STATES, CampaignState, NodeUpdateState

ENDED = (CampaignState.FINISHED, CampaignState.ABORTED)
LIVE = [CampaignState.DRAFT, CampaignState.SCHEDULED, CampaignState.RUNNING, CampaignState.PAUSED, CampaignState.HALTED]


@transaction.atomic
def roll_back(*, campaign_id: int, actor: str, now: datetime) -> Campaign:
    """Ends the campaign where it is still alive, then plans, approves and starts the way back for its nodes.

    One click: whoever may roll back approves with it. Raises ActionRefused.
    """
    campaign = Campaign.objects.select_for_update().get(pk=campaign_id)
    if campaign.kind == CampaignKind.ROLLBACK:
        raise ActionRefused(f"{campaign.name} is itself a rollback.", "Roll the version out again instead.")
    if live := campaign.rollbacks.filter(state__in=LIVE).first():
        raise ActionRefused(f"{live.name} is going on already.", "Watch it, or abort it first.")
    # Updates on their way may still take hold, so they are sent back too.
    begun = list(
        campaign.node_updates.filter(
            state__in=[*OPEN_STATES, NodeUpdateState.CONFIRMED, NodeUpdateState.SILENT]
        ).select_related("node", "image")
    )
    members = _members(campaign, begun)
    if not members:
        raise ActionRefused(f"No node of {campaign.name} has anything to go back to.", "There is nothing to do.")
    if campaign.state not in ENDED:
        end(campaign, now=now, reason=f"Rolled back by {actor}.", cause="rolled-back")
    rollback = new_campaign(
        name=f"Rollback of {campaign.name}"[:100],
        kind=CampaignKind.ROLLBACK,
        reverts=campaign,
        version=None,
        node_filter="",
        # One node that cannot go back must never stop the others from going back.
        gate={"maximum_failure_percent": 100, "maximum_silent_percent": 100, "minimum_sample": 1},
        created_by=actor,
        offer_timeout_s=campaign.offer_timeout_s,
        progress_timeout_s=campaign.progress_timeout_s,
    )
    store_plan(campaign=rollback, members=members, waves=[{"percent": 100, "soak_s": 0}], now=now)
    record(actor=actor, action="campaign.rollback", subject=campaign, after={"rollback": rollback.pk})
    if not rollback.plan["pending_patches"]:
        approve(campaign_id=rollback.pk, plan_hash=rollback.plan_hash, actor=actor, now=now)
        start(campaign_id=rollback.pk, actor=actor, now=now)
        rollback.refresh_from_db()
    return rollback


def _members(campaign: Campaign, begun: list[NodeUpdate]) -> list[Member]:
    images = ModelImage.objects.select_related("version__family").in_bulk(
        {update.base_digest for update in begun}, field_name="known_id"
    )
    members = []
    for update in begun:
        base, node = images.get(update.base_digest), update.node
        if update.image is None or node.active_digest == update.base_digest and update.state != NodeUpdateState.SILENT:
            if update.state in (NodeUpdateState.CONFIRMED,) or update.image is None:
                continue
        stratum = (node.profile_id, node.link)
        if base is None:
            members.append(
                Member(
                    node.pk,
                    node.endpoint,
                    node.active_digest,
                    stratum,
                    None,
                    "no-previous",
                    "These nodes held an image that this server never built, so it cannot bring it back.",
                )
            )
            continue
        intact = node.active_digest == update.image.digest and node.standby_digest[:8] == update.base_digest[:8]
        method = Method.COMMAND if intact or update.state in OPEN_STATES else Method.PATCH
        members.append(Member(node.pk, node.endpoint, node.active_digest, stratum, base, method=method))
    return members
