"""REST: create, approve, start, watch, stop and undo campaigns."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from django.http import HttpRequest
from django.shortcuts import get_object_or_404
from django.utils import timezone
from ninja import Field, Router, Schema, Status

from devices.api import After, Id, Limit, Strict
from devices.models import Node
from fleet.accounts.authentication import actor_of, approver, planner, viewer
from fleet.clock import Moment
from updates import selectors
from updates.campaigns import actions, penalties
from updates.campaigns.deadlines import OFFER_TIMEOUT_S, PATCH_DEADLINE_S, PROGRESS_TIMEOUT_S
from updates.campaigns.fairness import PRIORITY_HIGHEST
from updates.campaigns.plan import create_campaign
from updates.campaigns.plan_patches import patch_warnings
from updates.campaigns.rollback import roll_back
from updates.campaigns.terms import ATTEMPTS_HIGHEST, PATCH_DEADLINE_HIGHEST_S
from updates.models import Campaign, ModelVersion
from updates.states import NodeUpdateState

router = Router(tags=["campaigns"])
attention = Router(tags=["attention"])


class WaveIn(Strict):
    percent: float = Field(gt=0, le=100)
    soak_s: int = Field(0, ge=0, le=31_536_000)


class WindowIn(Strict):
    """rrule: RFC 5545, days only; every day where it is left out. from: the date that INTERVAL and COUNT count from."""

    rrule: str = Field("FREQ=DAILY", max_length=200)
    start: str
    end: str
    from_: str | None = Field(None, alias="from")


class BlackoutIn(Strict):
    """Both dates are included; one day where `to` is left out."""

    from_: str = Field(alias="from")
    to: str | None = None


class WindowsIn(Strict):
    transfer: list[WindowIn] = []
    activation: list[WindowIn] = []
    blackout: list[BlackoutIn] = []


class CampaignIn(Strict):
    """percent is cumulative. The same idempotency_key gives the same campaign again. `docs/campaigns.md` explains the terms.
    time_zone (an IANA name) is the one in which people are shown its times.

    limits: most open updates at once, by `campaign`, `wave`, `site`, `gateway` and `label.<key>`. windows: `transfer` and
    `activation` (lists of {rrule, start, end, from}, local time of each node) and `blackout` (list of {from, to}, dates).
    """

    name: str = Field(min_length=1, max_length=100, pattern=r"^[^\x00]*$")
    version_id: Id
    node_filter: str = ""
    waves: list[WaveIn] = Field(min_length=1, max_length=50)
    gate: dict[str, float | int | str | bool] = {}
    starts_at: Moment | None = None
    ends_at: Moment | None = None
    end_behaviour: Literal["finish", "cancel"] = "finish"
    offer_timeout_s: int = Field(OFFER_TIMEOUT_S, ge=60, le=31_536_000)
    progress_timeout_s: int = Field(PROGRESS_TIMEOUT_S, ge=60, le=31_536_000)
    maximum_attempts: int = Field(3, ge=1, le=ATTEMPTS_HIGHEST)
    full_image_allowed: bool = True
    patch_deadline_s: int = Field(PATCH_DEADLINE_S, ge=0, le=PATCH_DEADLINE_HIGHEST_S)
    priority: int = Field(50, ge=0, le=PRIORITY_HIGHEST)
    limits: dict[str, int] = {}
    windows: WindowsIn = WindowsIn()
    membership: Literal["fixed", "dynamic"] = "fixed"
    time_zone: str = Field("UTC", max_length=64)
    idempotency_key: str | None = Field(None, min_length=1, max_length=64, pattern=r"^[!-~]+$")


class CampaignOut(Schema):
    id: int
    name: str
    kind: str
    state: str
    reason: str
    version_id: int | None
    reverts_id: int | None
    node_filter: str
    plan: dict[str, Any]
    plan_hash: str
    approved_hash: str
    starts_at: datetime | None
    ends_at: datetime | None
    end_behaviour: str
    offer_timeout_s: int
    progress_timeout_s: int
    maximum_attempts: int
    full_image_allowed: bool
    patch_deadline_s: int
    priority: int
    limits: dict[str, int]
    windows: dict[str, Any]
    membership: str
    time_zone: str
    created_by: str
    approved_by: str
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None


class WaveOut(Schema):
    """counts: node updates by state."""

    index: int
    percent: float
    soak_s: int
    state: str
    soak_until: datetime | None
    verdict: dict[str, Any] | None
    counts: dict[str, int]


class CampaignDetail(CampaignOut):
    """patch_warnings: sentences about patches that failed or are late; they stop nothing."""

    patch_warnings: list[str]
    counts: dict[str, int]
    waves: list[WaveOut]


class NodeUpdateOut(Schema):
    """bytes_sent: payload bytes that left for this node, repeats included. attempts: that failed, of those that may pass."""

    id: int
    node_id: int
    endpoint: str = Field(alias="node.endpoint")
    wave: int = Field(alias="wave.index")
    state: str
    cause: str
    method: str
    base_digest: str
    received_bytes: int
    total_bytes: int
    bytes_sent: int
    attempts: int
    not_before: datetime | None
    changed_at: datetime


class NodeUpdatesOut(Schema):
    """next: what to send as `after` for the page that follows; null at the end."""

    nodes: list[NodeUpdateOut]
    next: int | None


class StoppedOut(Schema):
    id: int
    name: str
    state: str
    reason: str


class NodeAttentionOut(Schema):
    """kind: penalty-box, or the state in which the newest update of the node ended."""

    node_id: int = Field(alias="node.pk")
    endpoint: str = Field(alias="node.endpoint")
    kind: str
    cause: str = Field(alias="update.cause")
    reason: str
    since: datetime
    faults: int
    campaign_id: int = Field(alias="update.campaign_id")
    node_update_id: int = Field(alias="update.pk")


class AttentionOut(Schema):
    """next: what to send as `before` for the page of nodes that follows; null at the end."""

    campaigns: list[StoppedOut]
    nodes: list[NodeAttentionOut]
    next: int | None


class Released(Schema):
    released: bool


class Approval(Strict):
    plan_hash: str


class Reason(Strict):
    reason: str = Field("", max_length=500, pattern=r"^[^\x00]*$")


def _acted(request: HttpRequest, campaign_id: int) -> dict[str, Any]:
    get_object_or_404(Campaign, pk=campaign_id)
    return {"campaign_id": campaign_id, "actor": actor_of(request), "now": timezone.now()}


@router.post("", response={201: CampaignOut}, auth=planner)
def create(request: HttpRequest, body: CampaignIn) -> Status[Campaign]:
    """A draft with its plan: read `plan`, then approve its `plan_hash`."""
    fields = body.dict(by_alias=True, exclude_none=True)
    version = get_object_or_404(ModelVersion, pk=fields.pop("version_id"))
    fields.setdefault("starts_at", None)
    return Status(201, create_campaign(version=version, actor=actor_of(request), now=timezone.now(), **fields))


@router.get("", response=list[CampaignOut], auth=viewer)
def list_campaigns(request: HttpRequest, before: Id | None = None, limit: Limit = 50) -> object:
    """Newest first; send the last id as `before` for the next page."""
    return selectors.campaigns(before=before, limit=limit)


@attention.get("", response=AttentionOut, auth=viewer)
def needs_attention(request: HttpRequest, before: Id | None = None, limit: Limit = 50) -> dict[str, object]:
    """Campaigns that stand still (on the first page), and nodes whose newest update did not succeed, latest first."""
    found = selectors.needs_attention(now=timezone.now(), before=before, limit=limit)
    following = found.nodes[-1].update.pk if len(found.nodes) == limit else None
    return {"campaigns": found.campaigns, "nodes": found.nodes, "next": following}


@attention.post("/nodes/{node_id}/release", response=Released, auth=planner)
def release(request: HttpRequest, node_id: Id) -> dict[str, bool]:
    """Lets a node out of the penalty box: its faults until now count no more. False where it was not in it."""
    node = get_object_or_404(Node, pk=node_id)
    return {"released": penalties.release(node=node, actor=actor_of(request), now=timezone.now())}


@router.get("/{campaign_id}", response=CampaignDetail, auth=viewer)
def get_campaign(request: HttpRequest, campaign_id: Id) -> dict[str, object]:
    campaign = get_object_or_404(Campaign, pk=campaign_id)
    waves = [
        {name: getattr(row.wave, name) for name in WaveOut.model_fields if name != "counts"} | {"counts": row.counts}
        for row in selectors.waves(campaign_id)
    ]
    counts = selectors.counts_by_campaign([campaign_id])[campaign_id]
    return {name: getattr(campaign, name) for name in CampaignOut.model_fields} | {
        "counts": counts,
        "waves": waves,
        "patch_warnings": patch_warnings(campaign, now=timezone.now()),
    }


@router.get("/{campaign_id}/nodes", response=NodeUpdatesOut, auth=viewer)
def list_node_updates(
    request: HttpRequest,
    campaign_id: Id,
    state: NodeUpdateState | None = None,
    after: After = 0,
    limit: Limit = 100,
) -> dict[str, object]:
    get_object_or_404(Campaign, pk=campaign_id)
    nodes = selectors.node_updates(campaign_id=campaign_id, state=state, after=after, limit=limit)
    return {"nodes": nodes, "next": nodes[-1].pk if len(nodes) == limit else None}


@router.post("/{campaign_id}/approve", response=CampaignOut, auth=approver)
def approve(request: HttpRequest, campaign_id: Id, body: Approval) -> Campaign:
    return actions.approve(**_acted(request, campaign_id), plan_hash=body.plan_hash)


@router.post("/{campaign_id}/start", response=CampaignOut, auth=approver)
def start(request: HttpRequest, campaign_id: Id) -> Campaign:
    return actions.start(**_acted(request, campaign_id))


@router.post("/{campaign_id}/pause", response=CampaignOut, auth=planner)
def pause(request: HttpRequest, campaign_id: Id, body: Reason | None = None) -> Campaign:
    return actions.pause(**_acted(request, campaign_id), reason=body.reason if body else "")


@router.post("/{campaign_id}/resume", response=CampaignOut, auth=approver)
def resume(request: HttpRequest, campaign_id: Id) -> Campaign:
    return actions.resume(**_acted(request, campaign_id))


@router.post("/{campaign_id}/abort", response=CampaignOut, auth=planner)
def abort(request: HttpRequest, campaign_id: Id, body: Reason | None = None) -> Campaign:
    return actions.abort(**_acted(request, campaign_id), reason=body.reason if body else "")


@router.post("/{campaign_id}/rollback", response={201: CampaignOut}, auth=approver)
def rollback(request: HttpRequest, campaign_id: Id) -> Status[Campaign]:
    """The campaign that goes back."""
    return Status(201, roll_back(**_acted(request, campaign_id)))
