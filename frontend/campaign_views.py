"""Campaigns: list, new, plan, live, and what people do to them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from fleet.accounts.models import Role
from frontend import campaign_pages, pages, plan_pages, selectors
from frontend.access import demand, signed_in
from frontend.templatetags.fleet_format import format_bytes, format_duration, format_time
from frontend.terms_form import term_rows
from updates import selectors as updates
from updates.campaigns import actions, rollback
from updates.campaigns.plan_patches import patch_warnings
from updates.campaigns.plan_warnings import plan_warnings
from updates.models import Campaign
from updates.states import CAMPAIGN, CampaignState


def _campaign(campaign_id: int) -> Campaign:
    try:
        return updates.campaign(campaign_id)
    except Campaign.DoesNotExist as error:
        raise Http404(f"No campaign {campaign_id}.") from error


@require_GET
@signed_in
def campaigns(request: HttpRequest) -> HttpResponse:
    form = campaign_pages.CampaignFilterForm(request.GET)
    form.is_valid()
    wanted = {name: form.cleaned_data.get(name) or "" for name in ("name", "state")}
    found = updates.campaigns(before=pages.key(request, "before"), limit=updates.PAGE + 1, **wanted)
    rows = selectors.campaign_rows(found[: updates.PAGE])
    context = {
        "form": form,
        "rows": rows,
        "filtered": any(wanted.values()),
        "query": urlencode({name: value for name, value in wanted.items() if value}),
        "next_before": rows[-1].campaign.pk if len(found) > updates.PAGE else None,
        "live": sum(row.campaign.state in updates.LIVE_CAMPAIGNS for row in rows),
    }
    return render(request, "frontend/campaigns.html", context)


@require_GET
@signed_in
def plan(request: HttpRequest, campaign_id: int) -> HttpResponse:
    campaign = _campaign(campaign_id)
    start = campaign.started_at or campaign.starts_at
    context = {
        "campaign": campaign,
        "plan": campaign.plan,
        "links": plan_pages.link_rows(campaign.plan),
        "gateways": plan_pages.gateway_rows(campaign.plan),
        "calendar": plan_pages.plan_calendar(campaign.plan, campaign=campaign, start=start or timezone.now()),
        "starts_now": start is None,
        "changes": plan_pages.changes(campaign.plan, campaign),
        "terms": term_rows(campaign.plan.get("terms", {}), campaign.time_zone),
        "warnings": [
            *(plan_warnings(campaign.plan, campaign.gate) if campaign.state == CampaignState.DRAFT else []),
            *patch_warnings(campaign, now=timezone.now()),
        ],
        "verdict": campaign_pages.plan_verdict(campaign),
        "draft": campaign.state == CampaignState.DRAFT,
        "approved": bool(campaign.approved_hash) and campaign.approved_hash == campaign.plan_hash,
        "pending": campaign.state == CampaignState.DRAFT and campaign.plan.get("pending_patches"),
    }
    if not request.htmx:  # type: ignore[attr-defined]
        return render(request, "frontend/plan.html", context)
    response = render(request, "frontend/parts/plan_pending.html", context)
    if not context["pending"]:
        response["HX-Refresh"] = "true"
    return response


@require_GET
@signed_in
def campaign(request: HttpRequest, campaign_id: int) -> HttpResponse:
    """The live page. Its poll carries the state that the page was made for: another one brings other buttons."""
    found = _campaign(campaign_id)
    if found.state == CampaignState.DRAFT:
        return redirect("campaign-plan", found.pk)
    context = campaign_pages.campaign_page(found)
    if not request.htmx:  # type: ignore[attr-defined]
        return render(request, "frontend/campaign.html", context)
    response = render(request, "frontend/parts/campaign_live.html", {**context, "poll": True})
    if request.GET.get("state") != found.state:
        response["HX-Refresh"] = "true"
    return response


@require_POST
@signed_in
def halt(request: HttpRequest, campaign_id: int) -> HttpResponse:
    """One click, no question: stopping is always safe."""
    demand(request, CAMPAIGN.role_for(CampaignState.PAUSED))
    found = _campaign(campaign_id)
    try:
        actions.pause(campaign_id=found.pk, actor=request.user.get_username(), now=timezone.now())
    except actions.ActionRefused as refusal:
        messages.error(request, f"{refusal.message} {refusal.fix}")
    return redirect("campaign", found.pk)


@dataclass(frozen=True)
class Action:
    """A step that asks first. `consequences` says what will happen, from the campaign as it is."""

    role: str
    title: str
    button: str
    icon: str
    consequences: Callable[[Campaign], list[str]]
    run: Callable[[Campaign, HttpRequest, datetime], Campaign]


def _run(name: str) -> Callable[[Campaign, HttpRequest, datetime], Campaign]:
    def run(campaign: Campaign, request: HttpRequest, now: datetime) -> Campaign:
        steps: dict[str, Callable[..., Campaign]] = {
            "start": actions.start,
            "resume": actions.resume,
            "abort": actions.abort,
            "roll-back": rollback.roll_back,
        }
        more: dict[str, Any] = {"reason": request.POST.get("reason", "").strip()[:500]} if name == "abort" else {}
        return steps[name](campaign_id=campaign.pk, actor=request.user.get_username(), now=now, **more)

    return run


def _approve(campaign: Campaign, request: HttpRequest, now: datetime) -> Campaign:
    """Binds to the hash that the page was shown with, not to the one stored now."""
    return actions.approve(
        campaign_id=campaign.pk,
        plan_hash=request.POST.get("plan_hash", ""),
        actor=request.user.get_username(),
        now=now,
    )


def _approve_and_start(campaign: Campaign, request: HttpRequest, now: datetime) -> Campaign:
    return _run("start")(_approve(campaign, request, now), request, now)


def _sending(campaign: Campaign) -> list[str]:
    plan = campaign.plan
    lines = [
        (
            f"{plan['reached']:,} of {plan['nodes']:,} nodes are offered "
            f"{campaign.version or 'what they ran before'}, in {pages.plural(len(plan['waves']), 'wave')}."
        ),
        f"{format_bytes(plan['bytes_sent'])} are sent; full images would be {format_bytes(plan['bytes_full'])}.",
    ]
    if plan["waves"]:
        lines.append(f"The first wave offers it to {pages.plural(plan['waves'][0]['nodes'], 'node')}.")
    return lines


def _starting(campaign: Campaign) -> list[str]:
    at = campaign.starts_at
    when = f"It starts at {format_time(at)}." if at else "It starts at once."
    return [*_sending(campaign), when, "Halt stops it at any time with one click."]


def _rolling_back(campaign: Campaign) -> list[str]:
    plan = rollback.preview(campaign, now=timezone.now())
    by_patch = plan["reached"] - plan["by_command"]
    lines = [
        (
            f"{pages.plural(plan['nodes'], 'node runs', 'nodes run')} this version or may switch to it soon; "
            "each goes back to what it ran before."
        ),
        (
            f"{pages.plural(plan['by_command'], 'node goes', 'nodes go')} back by a command of a few bytes: "
            "the previous slot is intact."
        ),
        f"{pages.plural(by_patch, 'node needs', 'nodes need')} the reverse patch or the full previous image.",
    ]
    lines += [
        f"{pages.plural(row['nodes'], 'node', 'nodes')} cannot go back. {row['reason']}" for row in plan["refused"]
    ]
    if plan["pending_patches"]:
        waits = pages.plural(plan["pending_patches"], "reverse patch is", "reverse patches are")
        lines.append(f"{waits} still being built; the rollback starts when they are there.")
    lines += [
        (
            f"It sends {format_bytes(plan['bytes_sent'])} in {pages.plural(plan['frames'], 'frame')}; "
            f"the slowest node takes {format_duration(plan['hours'] * 3600)} once it is awake."
        ),
        "A rollback is a campaign of its own: it can be watched and halted.",
    ]
    if campaign.state in updates.LIVE_CAMPAIGNS:
        lines.insert(0, f"{campaign.name} ends: nodes that have not switched are no longer offered its version.")
    return lines


def _constant(*lines: str) -> Callable[[Campaign], list[str]]:
    return lambda campaign: list(lines)


ACTIONS = {
    "approve": Action(
        Role.APPROVER,
        "Approve this plan?",
        "Approve the plan",
        "s-confirmed",
        lambda campaign: [*_sending(campaign), "Nothing is sent yet: the campaign still has to be started."],
        _approve,
    ),
    "launch": Action(
        Role.APPROVER, "Approve this plan and start?", "Approve and start", "i-arrow", _starting, _approve_and_start
    ),
    "start": Action(
        CAMPAIGN.role_for(CampaignState.SCHEDULED), "Start this campaign?", "Start", "i-arrow", _starting, _run("start")
    ),
    "resume": Action(
        CAMPAIGN.role_for(CampaignState.RUNNING),
        "Go on with this campaign?",
        "Go on",
        "i-arrow",
        _constant(
            "Nodes of the open wave are offered the version again.",
            "If the gate held or halted the wave, going on accepts its numbers under your name.",
        ),
        _run("resume"),
    ),
    "abort": Action(
        CAMPAIGN.role_for(CampaignState.ABORTED),
        "End this campaign for good?",
        "Abort",
        "s-cancelled",
        _constant(
            "Nodes that have not switched are no longer offered the version; they keep what they run.",
            "Nodes that switched already keep the new image. To take it back, roll back instead.",
            "An aborted campaign cannot go on.",
        ),
        _run("abort"),
    ),
    "roll-back": Action(
        Role.APPROVER, "Roll this campaign back?", "Roll back", "s-reverted", _rolling_back, _run("roll-back")
    ),
}


@require_http_methods(["GET", "POST"])
@signed_in
def act(request: HttpRequest, campaign_id: int, action: str) -> HttpResponse:
    """A page that says what will happen, and its button."""
    if (chosen := ACTIONS.get(action)) is None:
        raise Http404(f"No action “{action}”.")
    demand(request, chosen.role)
    found = _campaign(campaign_id)
    refusal = None
    if request.method == "POST":
        try:
            after = chosen.run(found, request, timezone.now())
            return redirect("campaign", after.pk)
        except actions.ActionRefused as error:
            refusal = error
            found = _campaign(campaign_id)
    context = {
        "campaign": found,
        "action": action,
        "chosen": chosen,
        "consequences": chosen.consequences(found),
        "refusal": refusal,
    }
    return render(request, "frontend/campaign_action.html", context, status=409 if refusal else 200)
