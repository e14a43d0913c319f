"""Going back, as a campaign like any other: a command where the previous slot is whole, else the reverse patch."""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple

from django.db import transaction

from devices.links.base import RadioFacts
from devices.models import Delivery, DeliveryState
from fleet.audit.models import record
from updates.campaigns.actions import ActionRefused, approve, end, locked, start
from updates.campaigns.fairness import PRIORITY_HIGHEST
from updates.campaigns.plan import RADIO_COLUMNS, Member, Shared, new_campaign, store_plan, summarize
from updates.models import Campaign, CampaignKind, Method, ModelImage, Wave
from updates.states import OPEN_STATES, CampaignState, NodeUpdateState

# The node has not said yet how it ended.
UNDECIDED = [*OPEN_STATES, NodeUpdateState.SILENT]
ENDED = (CampaignState.FINISHED, CampaignState.ABORTED)
LIVE = [CampaignState.DRAFT, CampaignState.SCHEDULED, CampaignState.RUNNING, CampaignState.PAUSED, CampaignState.HALTED]


@transaction.atomic
def roll_back(*, campaign_id: int, actor: str, now: datetime) -> Campaign:
    """Ends the campaign where it is still alive, then plans, approves and starts the way back for its nodes.

    One click: whoever may roll back approves with it. Raises ActionRefused.
    """
    campaign = locked(campaign_id)
    if campaign.kind == CampaignKind.ROLLBACK:
        raise ActionRefused(f"{campaign.name} is itself a rollback.", "Roll the version out again instead.")
    if live := campaign.rollbacks.filter(state__in=LIVE).first():
        raise ActionRefused(f"{live.name} is going on already.", "Watch it, or abort it first.")
    members = _members(campaign)
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
        patch_deadline_s=campaign.patch_deadline_s,
        # The way back waits for no window, no limit and no other campaign.
        priority=PRIORITY_HIGHEST,
    )
    store_plan(campaign=rollback, members=members, waves=[{"percent": 100, "soak_s": 0}], now=now)
    record(actor=actor, action="campaign.rollback", subject=campaign, after={"rollback": rollback.pk})
    start_when_planned(rollback, now=now)
    return rollback


def preview(campaign: Campaign, *, now: datetime) -> dict[str, Any]:
    """The plan that rolling back would store, and of its nodes those that go back `by_command`. Writes nothing."""
    members = _members(campaign)
    way = Campaign(
        kind=CampaignKind.ROLLBACK,
        reverts=campaign,
        patch_deadline_s=campaign.patch_deadline_s,
        plan={"members": "", "patches": []},
    )
    waves = [Wave(index=0, percent=100, soak_s=0)]
    summarize(
        campaign=way, members=members, index_of=dict.fromkeys((m.node_id for m in members), 0), waves=waves, now=now
    )
    by_command = sum(member.image is not None and member.method == Method.COMMAND for member in members)
    return {**way.plan, "by_command": by_command}


def start_when_planned(rollback: Campaign, *, now: datetime) -> None:
    """Whoever rolled back has approved it with that click, so it goes as soon as its patches are there."""
    if rollback.plan["pending_patches"]:
        return
    approve(campaign_id=rollback.pk, plan_hash=rollback.plan_hash, actor=rollback.created_by, now=now)
    start(campaign_id=rollback.pk, actor=rollback.created_by, now=now)
    rollback.refresh_from_db()


def _members(campaign: Campaign) -> list[Member]:
    """Nodes that run the campaign's image, or still may: a bundle that is whole on the node takes hold by itself."""
    updates = campaign.node_updates.filter(image__isnull=False).exclude(state=NodeUpdateState.PLANNED)
    previous = ModelImage.objects.select_related("version__family").in_bulk(
        set(updates.order_by().values_list("base_digest", flat=True).distinct()), field_name="known_id"
    )
    target = dict(ModelImage.objects.filter(pk__in=updates.values("image")).values_list("pk", "known_id"))
    pulled = Delivery.objects.filter(
        reference__in=updates.values("pk"), state__in=[DeliveryState.TRANSFERRING, DeliveryState.DELIVERED]
    )
    may_hold = set(pulled.values_list("reference", flat=True))
    shared = Shared()
    members = []
    # Columns, not objects: a campaign may have a million nodes.
    for pk, state, image_id, base, *rest in updates.order_by("pk").values_list(*COLUMNS).iterator(chunk_size=5000):
        node = _Node(*rest[: len(_Node._fields)])
        # By the whole digest, or by its first digits where a link carries no more.
        runs_it = bool(node.active_digest) and target[image_id].startswith(node.active_digest)
        if runs_it or (state in UNDECIDED and pk in may_hold):
            radio = shared.radio(*rest[len(_Node._fields) :])
            members.append(_member(node, previous.get(base), runs_it=runs_it, radio=radio, shared=shared))
    return members


class _Node(NamedTuple):
    """What going back asks of a node: columns of Node, where `__` leads to a row beside it."""

    pk: int
    endpoint: str
    active_digest: str
    standby_digest: str
    profile_id: int
    link: str
    firmware_build__decoder_profile: str | None


COLUMNS = (
    *("pk", "state", "image_id", "base_digest"),
    *(f"node__{column}" for column in (*_Node._fields, *RADIO_COLUMNS)),
)


def _member(
    node: _Node, previous: ModelImage | None, *, runs_it: bool, radio: RadioFacts | None, shared: Shared
) -> Member:
    stratum = shared.one((node.profile_id, node.link))
    place = (node.pk, node.endpoint, shared.one(node.active_digest), stratum)
    if previous is None:
        why = "These nodes held an image that this server never built, so it cannot bring it back."
        return Member(*place, None, "no-previous", why)
    previous_slot_lost = runs_it and node.standby_digest[:8] != previous.digest[:8]
    # A node that cannot follow the command says so, and gets the patch then.
    method = Method.PATCH if previous_slot_lost else Method.COMMAND
    return Member(*place, previous, method=method, radio=radio, decoder=node.firmware_build__decoder_profile or "")
