"""Health for probes, metrics for Prometheus, and a page for people."""

from __future__ import annotations

import secrets

from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe
from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from fleet.operations.models import LastRun
from fleet.status import checks
from fleet.status.metrics import registry
from frontend.access import signed_in
from updates.campaigns.runs import TICK


@require_safe
@never_cache
def live(request: HttpRequest) -> HttpResponse:
    """This process answers. Asks nobody else: a restart would not bring a lost database back."""
    return JsonResponse({"state": checks.OK})


@require_safe
@never_cache
def ready(request: HttpRequest) -> HttpResponse:
    """200 where every check passes, else 503. `?checks=database,broker` asks for some only."""
    only = [name for name in request.GET.get("checks", "").split(",") if name]
    unknown = sorted(set(only) - checks.CHECKS.keys())
    if unknown:
        fix = f"Use some of {', '.join(checks.CHECKS)}."
        return JsonResponse({"field": "checks", "detail": "There is no such check.", "fix": fix}, status=400)
    now = timezone.now()
    found = checks.ready(now=now, only=only)
    failed = any(check.state == checks.FAILED for check in found)
    content = {
        "state": checks.FAILED if failed else checks.OK,
        "at": now.isoformat(),
        "checks": [check.as_json() for check in found],
    }
    return JsonResponse(content, status=503 if failed else 200)


@require_safe
@never_cache
def metrics(request: HttpRequest) -> HttpResponse:
    if not settings.METRICS_TOKEN and not settings.DEBUG:
        raise Http404("METRICS_TOKEN is not set.")
    sent = request.headers.get("Authorization", "")
    if settings.METRICS_TOKEN and not secrets.compare_digest(
        sent.encode(), f"Bearer {settings.METRICS_TOKEN}".encode()
    ):
        refused = HttpResponse("Send Authorization: Bearer METRICS_TOKEN.\n", status=401, content_type="text/plain")
        refused["WWW-Authenticate"] = "Bearer"
        return refused
    return HttpResponse(generate_latest(registry()), content_type=CONTENT_TYPE_LATEST)


@require_safe
@never_cache
@signed_in
def page(request: HttpRequest) -> HttpResponse:
    now = timezone.now()
    found = checks.ready(now=now)
    failed = [check for check in found if check.state == checks.FAILED]
    context = {
        "checks": found,
        "failed": failed,
        "processes": checks.processes(now=now),
        "tick": LastRun.objects.filter(pk=TICK).first(),
        "verdict": _verdict(failed),
    }
    template = "frontend/parts/status_body.html" if getattr(request, "htmx", False) else "frontend/status.html"
    return render(request, template, context)


def _verdict(failed: list[checks.Check]) -> dict[str, str]:
    if not failed:
        sentence = "The fleet manager itself is well."
        return {"css": "is-done", "icon": "s-confirmed", "sentence": sentence, "next": ""}
    names = ", ".join(check.title for check in failed)
    count = (
        "One part of the fleet manager needs" if len(failed) == 1 else f"{len(failed)} parts of the fleet manager need"
    )
    sentence = f"{count} you: {names}."
    return {"css": "is-failed", "icon": "s-failed", "sentence": sentence, "next": failed[0].advice}
