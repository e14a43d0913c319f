"""The fleet page."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.http import require_GET

from frontend import pages, selectors
from frontend.access import signed_in


@require_GET
@signed_in
def fleet(request: HttpRequest) -> HttpResponse:
    overview = selectors.overview(now=timezone.now())
    template = "frontend/parts/fleet_body.html" if request.htmx else "frontend/fleet.html"  # type: ignore[attr-defined]
    return render(request, template, {"overview": overview, "verdict": pages.fleet_verdict(overview)})
