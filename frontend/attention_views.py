"""What a person should look at: campaigns that stand still, nodes that fell short, nodes in the penalty box."""

from __future__ import annotations

from django.conf import settings
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.views.decorators.http import require_GET, require_POST

from devices.models import Node
from fleet.accounts.permissions import Scope
from frontend.access import demand, signed_in
from frontend.pages import Verdict, key, plural
from updates import selectors
from updates.campaigns.penalties import release


@require_GET
@signed_in
def attention(request: HttpRequest) -> HttpResponse:
    before = key(request, "before")
    found = selectors.needs_attention(now=timezone.now(), before=before, limit=selectors.PAGE + 1)
    nodes = found.nodes[: selectors.PAGE]
    more = len(found.nodes) > selectors.PAGE
    context = {
        "campaigns": found.campaigns,
        "nodes": nodes,
        "first_page": before is None,
        "next_before": nodes[-1].update.pk if more else None,
        "penalty": f"{settings.PENALTY_FAULTS} failures in {settings.PENALTY_DAYS} days",
        "verdict": _verdict(found, more=more or before is not None),
    }
    return render(request, "frontend/attention.html", context)


def _verdict(found: selectors.Attention, *, more: bool) -> Verdict:
    if not found.campaigns and not found.nodes:
        return Verdict("is-confirmed", "s-confirmed", "Nothing needs attention.")
    stopped = f"{plural(len(found.campaigns), 'campaign')} stand{'s' if len(found.campaigns) == 1 else ''} still"
    fell = f"{'more than ' if more else ''}{plural(min(len(found.nodes), selectors.PAGE), 'node')} fell short"
    parts = [stopped] * bool(found.campaigns) + [fell] * bool(found.nodes)
    return Verdict("is-held", "s-held", f"{' and '.join(parts)}.")


@require_POST
@signed_in
def release_node(request: HttpRequest, node_id: int) -> HttpResponse:
    demand(request, Scope.CAMPAIGNS.role)
    node = get_object_or_404(Node, pk=node_id)
    if release(node=node, actor=request.user.get_username(), now=timezone.now()):
        messages.success(request, f"{node.endpoint} is out of the penalty box: the next plan takes it in again.")
    else:
        messages.info(request, f"{node.endpoint} was not in the penalty box any more.")
    return redirect("attention")
