"""What people do to a campaign. The dashboard and the REST API call these alike."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.db import transaction
from django.utils import timezone

from devices.links import link_for
from devices.models import LinkKind
from fleet.audit.models import record
from fleet.operations.services import ran
from fleet.operations.wakeups import wake
from updates.campaigns import deadlines
from updates.campaigns.runs import tick_of
from updates.campaigns.transitions import lock, move, sum_tallies
from updates.models import Campaign, Wave
from updates.states import (
    CAMPAIGN,
    ON_THE_AIR,
    ON_THE_NODE,
    OPEN_STATES,
    WAVE,
    Actor,
    CampaignState,
    NodeUpdateState,
    WaveState,
)

CHUNK = 5000


class ActionRefused(Exception):
    """The campaign cannot do this now: `message` says why, `fix` what to do instead."""

    def __init__(self, message: str, fix: str) -> None:
        super().__init__(f"{message} {fix}")
        self.message, self.fix = message, fix


def locked(campaign_id: int) -> Campaign:
    """The campaign, alone: after the tick or the batch that works on it now, and before the next."""
    lock([campaign_id], wait=True)
    return Campaign.objects.select_for_update().get(pk=campaign_id)


def set_state(campaign: Campaign, state: CampaignState, *, by: Actor, reason: str = "", **changes: Any) -> None:
    """Compare-and-swap; raises ActionRefused where the campaign is no longer where it must come from."""
    sources = CAMPAIGN.sources(state, by=by)
    changed = Campaign.objects.filter(pk=campaign.pk, state__in=sources).update(state=state, reason=reason, **changes)
    if not changed:
        campaign.refresh_from_db(fields=["state"])
        raise ActionRefused(
            f"{campaign.name} is {campaign.state}, so it cannot become {state}.",
            f"That is possible only while it is {' or '.join(sources)}.",
        )
    campaign.refresh_from_db()
    if state in (CampaignState.SCHEDULED, CampaignState.RUNNING):
        # Its next tick is awaited from now on: how long a campaign waits is told from here.
        ran(durations_s={tick_of(campaign.pk): 0.0}, now=timezone.now())
        wake("updates.tasks.tick_campaigns")


def set_wave_state(wave: Wave, state: WaveState, *, by: Actor, **changes: Any) -> bool:
    """Compare-and-swap; whether the wave was where it must come from."""
    sources = WAVE.sources(state, by=by)
    changed = Wave.objects.filter(pk=wave.pk, state__in=sources).update(state=state, **changes)
    wave.refresh_from_db()
    return bool(changed)


def _audited(campaign: Campaign, actor: str, action: str, before: str, **more: Any) -> None:
    record(
        actor=actor,
        action=f"campaign.{action}",
        subject=campaign,
        before={"state": before},
        after={"state": str(campaign.state), **more},
    )


@transaction.atomic
def approve(*, campaign_id: int, plan_hash: str, actor: str, now: datetime) -> Campaign:
    """Binds the approval to the plan that was read: another hash means that the plan has changed since."""
    campaign = locked(campaign_id)
    if campaign.state != CampaignState.DRAFT:
        raise ActionRefused(f"{campaign.name} is {campaign.state}, not a draft.", "Only a draft can be approved.")
    if campaign.plan.get("pending_patches"):
        raise ActionRefused("Patches of this plan are still being built.", "Read the plan again in a few seconds.")
    if plan_hash != campaign.plan_hash:
        raise ActionRefused("The plan has changed since you read it.", "Read it again and approve what it says now.")
    campaign.approved_hash, campaign.approved_by = plan_hash, actor
    campaign.save(update_fields=["approved_hash", "approved_by"])
    record(actor=actor, action="campaign.approve", subject=campaign, after={"plan_hash": plan_hash})
    return campaign


@transaction.atomic
def start(*, campaign_id: int, actor: str, now: datetime) -> Campaign:
    """Now, or at `starts_at` where that is later."""
    campaign = locked(campaign_id)
    before = campaign.state
    if before == CampaignState.DRAFT and campaign.approved_hash != campaign.plan_hash:
        raise ActionRefused(f"The plan of {campaign.name} is not approved.", "Have an approver approve it first.")
    set_state(campaign, CampaignState.SCHEDULED, by=Actor.OPERATOR)
    _audited(campaign, actor, "start", before)
    return campaign


@transaction.atomic
def pause(*, campaign_id: int, actor: str, now: datetime, reason: str = "") -> Campaign:
    """Stops it at once: nothing more is offered, and what is on its way is withdrawn.

    Costs the blocks of transfers that were under way: they begin anew when the campaign goes on.
    """
    campaign = locked(campaign_id)
    before = campaign.state
    set_state(campaign, CampaignState.PAUSED, by=Actor.OPERATOR, reason=reason or f"Paused by {actor}.")
    withdraw(campaign, now=now, states=ON_THE_AIR)
    _audited(campaign, actor, "pause", before)
    return campaign


@transaction.atomic
def resume(*, campaign_id: int, actor: str, now: datetime) -> Campaign:
    """Goes on. A wave that the gate held or halted is accepted as it is, and that is written down."""
    campaign = locked(campaign_id)
    before = campaign.state
    if before == CampaignState.SCHEDULED:
        raise ActionRefused(f"{campaign.name} is scheduled already.", "Wait for its time.")
    set_state(campaign, CampaignState.RUNNING, by=Actor.OPERATOR)
    _accept(campaign, actor)
    # Time that the campaign stood still is not the nodes' silence.
    for states, timeout_s in ((ON_THE_AIR, campaign.offer_timeout_s), (ON_THE_NODE, campaign.progress_timeout_s)):
        standing = campaign.node_updates.filter(state__in=states).values_list("pk", flat=True)
        deadlines.renew(list(standing), states=states, timeout_s=timeout_s, now=now)
    _audited(campaign, actor, "resume", before)
    return campaign


def _accept(campaign: Campaign, actor: str) -> None:
    stopped = campaign.waves.filter(verdict__decision__in=["hold", "halt"]).exclude(state=WaveState.PASSED)
    for wave in stopped.order_by("index"):
        opened = campaign.waves.filter(index__lte=wave.index).values_list("pk", flat=True)
        wave.verdict = {**(wave.verdict or {}), "accepted": {"by": actor, "tallies": sum_tallies(list(opened))}}
        wave.save(update_fields=["verdict"])
        set_wave_state(wave, WaveState.OPEN, by=Actor.OPERATOR)


@transaction.atomic
def abort(*, campaign_id: int, actor: str, now: datetime, reason: str = "") -> Campaign:
    """Ends it for good: what has not ended on a node is withdrawn. Nodes that switched already keep the new image."""
    campaign = locked(campaign_id)
    before = campaign.state
    end(campaign, now=now, reason=reason or f"Aborted by {actor}.", cause="aborted")
    _audited(campaign, actor, "abort", before, reason=reason)
    return campaign


def end(campaign: Campaign, *, now: datetime, reason: str, cause: str) -> None:
    set_state(campaign, CampaignState.ABORTED, by=Actor.OPERATOR, reason=reason, ended_at=now)
    withdraw(campaign, now=now, states=OPEN_STATES, cancel=cause)
    while cancel_planned(campaign, now=now, by=Actor.OPERATOR, cause=cause):
        pass


def cancel_planned(campaign: Campaign, *, now: datetime, by: Actor, cause: str) -> int:
    """Ends up to CHUNK planned updates; how many."""
    planned = campaign.node_updates.filter(state=NodeUpdateState.PLANNED).order_by("id").values_list("pk", flat=True)
    return len(move(list(planned[:CHUNK]), NodeUpdateState.CANCELLED, now=now, by=by, cause=cause))


def withdraw(
    campaign: Campaign,
    *,
    now: datetime,
    states: list[NodeUpdateState],
    cancel: str = "",
    by: Actor = Actor.OPERATOR,
) -> None:
    """Takes back what links still hold for node updates in `states`; with `cancel`, these end with that cause.

    Without it they stay open: the engine offers them again when the campaign goes on.
    """
    open_updates = campaign.node_updates.filter(state__in=states).order_by("id")
    for kind in LinkKind.values:
        references = list(open_updates.filter(node__link=kind).values_list("pk", flat=True))
        if references:
            link_for(kind).cancel(references=references, now=now)
    if cancel:
        move(list(open_updates.values_list("pk", flat=True)), NodeUpdateState.CANCELLED, now=now, by=by, cause=cancel)
