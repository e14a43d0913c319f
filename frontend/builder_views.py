"""Planning a campaign: the builder with its first plan. Only "save" stores anything."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.views.decorators.http import require_GET, require_http_methods

from devices.query import QueryError
from fleet.accounts.models import Role
from frontend import pages, plan_pages
from frontend.access import demand, signed_in
from frontend.builder import POLICY, CampaignForm, WaveRows
from frontend.terms_form import field_of
from updates.campaigns import plan as planning
from updates.campaigns import preview as first_plan
from updates.campaigns.terms import read_terms
from updates.models import Campaign
from updates.node_filter import nodes_matching


@require_http_methods(["GET", "POST"])
@signed_in
def new(request: HttpRequest) -> HttpResponse:
    """`do`: add, remove-<row>, preview or save. Adding and removing rows judges nothing yet."""
    demand(request, Role.OPERATOR)
    now = timezone.now()
    if request.method != "POST":
        form = CampaignForm(initial={"version": request.GET.get("version")}, now=now)
        return _page(request, form, WaveRows.default())
    rows, do = WaveRows.read(request.POST), request.POST.get("do", "preview")
    if do == "add" or do.startswith("remove-"):
        if do == "add":
            rows.add()
        elif (number := do.removeprefix("remove-")).isascii() and number.isdigit():
            rows.remove(int(number[:3]))
        initial = {name: request.POST.get(name, "") for name in CampaignForm.base_fields}
        return _page(request, CampaignForm(initial=initial, now=now), rows)
    form = CampaignForm(request.POST, now=now)
    # Both, so that all that is wrong shows at once.
    valid = [form.is_valid(), rows.is_valid()]
    if not all(valid):
        return _page(request, form, rows, status=400)
    try:
        if do == "save":
            return redirect("campaign-plan", _create(request, form, rows, now).pk)
        terms = read_terms(form.terms(), starts_at=form.cleaned_data["starts_at"], now=now)
        found = first_plan.preview(**_what(form, rows), full_image_allowed=terms["full_image_allowed"], now=now)
    except planning.PlanRefused as refusal:
        pages.add_refusal(form, field_of(refusal.field), f"{refusal.message} {refusal.fix}")
    except QueryError as error:
        form.add_error("node_filter", f"Character {error.position + 1}: {error.message}; {error.fix}.")
    else:
        start = form.cleaned_data["starts_at"]
        context: dict[str, Any] = {
            "preview": found,
            "plan": found.plan,
            "links": plan_pages.link_rows(found.plan),
            "gateways": plan_pages.gateway_rows(found.plan),
            "calendar": plan_pages.plan_calendar(
                found.plan, campaign=Campaign(time_zone=form.cleaned_data["time_zone"]), start=start or now
            ),
            "starts_now": start is None,
        }
        return _page(request, form, rows, **context)
    return _page(request, form, rows, status=400)


@require_GET
@signed_in
def filter_count(request: HttpRequest) -> HttpResponse:
    """While somebody types: how many nodes match, or where the filter cannot be read. Always 200, for it is an answer."""
    text = request.GET.get("node_filter", "")
    try:
        context: dict[str, Any] = {"count": nodes_matching(text, now=timezone.now()).count()}
    except QueryError as error:
        context = {"error": error}
    return render(request, "frontend/parts/filter_count.html", {"everything": not text.strip(), **context})


def _what(form: CampaignForm, rows: WaveRows) -> dict[str, Any]:
    return {
        "version": form.cleaned_data["version"],
        "node_filter": form.cleaned_data["node_filter"],
        "waves": rows.values(),
        "gate": form.gate(),
    }


def _create(request: HttpRequest, form: CampaignForm, rows: WaveRows, now: datetime) -> Campaign:
    return planning.create_campaign(
        **_what(form, rows),
        name=form.cleaned_data["name"],
        starts_at=form.cleaned_data["starts_at"],
        time_zone=form.cleaned_data["time_zone"],
        actor=request.user.get_username(),
        now=now,
        **form.terms(),
    )


def _page(request: HttpRequest, form: CampaignForm, rows: WaveRows, *, status: int = 200, **more: Any) -> HttpResponse:
    context = {"form": form, "rows": rows.rows, "policy": POLICY, **more}
    return render(request, "frontend/campaign_new.html", context, status=status)
