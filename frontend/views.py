"""Fleet, nodes and model versions."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any
from urllib.parse import urlencode

from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.views.decorators.csrf import csrf_exempt, csrf_protect
from django.views.decorators.http import require_GET, require_http_methods

from devices.models import Node
from devices.query import QueryError
from fleet.accounts.models import Role
from frontend import pages, reasons, selectors
from frontend.access import demand, signed_in
from frontend.forms import NodeFilterForm, UploadForm, known_families
from updates import selectors as updates
from updates import services
from updates.models import ModelVersion
from updates.states import VersionState


@require_GET
@signed_in
def fleet(request: HttpRequest) -> HttpResponse:
    overview = selectors.overview(now=timezone.now())
    template = "frontend/parts/fleet_body.html" if request.htmx else "frontend/fleet.html"  # type: ignore[attr-defined]
    return render(request, template, {"overview": overview, "verdict": pages.fleet_verdict(overview)})


def _node_filter(request: HttpRequest) -> tuple[NodeFilterForm, selectors.NodeFilter, int]:
    """Invalid values do not filter; the page shows which they were."""
    form = NodeFilterForm(request.GET)
    form.is_valid()
    values = form.cleaned_data
    names = [name for name in asdict(selectors.NodeFilter()) if values.get(name)]
    return form, selectors.NodeFilter(**{name: values[name] for name in names}), values.get("after") or 0


@require_GET
@signed_in
def nodes(request: HttpRequest) -> HttpResponse:
    form, wanted, after = _node_filter(request)
    error = None
    try:
        rows = selectors.node_rows(wanted, now=timezone.now(), after=after, limit=selectors.PAGE + 1)
    except QueryError as refusal:
        rows, error = [], refusal
    page, more = rows[: selectors.PAGE], len(rows) > selectors.PAGE
    context: dict[str, Any] = {
        "form": form,
        "wanted": wanted,
        "error": error,
        "error_at": (wanted.text[: error.position], wanted.text[error.position :]) if error else None,
        "rows": page,
        "query": urlencode({name: value for name, value in asdict(wanted).items() if value}),
        "first_page": after == 0,
        "next_after": page[-1].node.pk if more else None,
        "verdict": pages.nodes_verdict(wanted, shown=len(page), more=more, first=after == 0, readable=error is None),
    }
    return render(request, "frontend/nodes.html", context, status=400 if error else 200)


@require_GET
@signed_in
def node_count(request: HttpRequest) -> HttpResponse:
    """Apart from the list, so that the list never waits for it."""
    _, wanted, _ = _node_filter(request)
    try:
        count = selectors.filtered_nodes(wanted, now=timezone.now()).count()
    except QueryError as refusal:
        raise Http404(str(refusal)) from refusal
    return render(request, "frontend/parts/node_count.html", {"count": count})


@require_GET
@signed_in
def node(request: HttpRequest, node_id: int) -> HttpResponse:
    try:
        page = selectors.node_page(node_id, now=timezone.now())
    except Node.DoesNotExist as error:
        raise Http404(f"No node {node_id}.") from error
    context = {"page": page, "node": page.node, "reason": reasons.why(page), "chain": reasons.chain(page)}
    return render(request, "frontend/node.html", context)


@require_GET
@signed_in
def versions(request: HttpRequest) -> HttpResponse:
    rows = updates.versions(before=pages.key(request, "before"), limit=updates.PAGE + 1)
    page = rows[: updates.PAGE]
    context = {
        "versions": page,
        "next_before": page[-1].pk if len(rows) > updates.PAGE else None,
        "verdict": pages.versions_verdict(page),
    }
    return render(request, "frontend/versions.html", context)


@require_GET
@signed_in
def version(request: HttpRequest, version_id: int) -> HttpResponse:
    try:
        found = updates.version(version_id)
    except ModelVersion.DoesNotExist as error:
        raise Http404(f"No version {version_id}.") from error
    context = pages.version_page(found)
    if not request.htmx:  # type: ignore[attr-defined]
        return render(request, "frontend/version.html", context)
    response = render(request, "frontend/parts/build_progress.html", context)
    if found.state not in (VersionState.UPLOADED, VersionState.BUILDING):
        response["HX-Refresh"] = "true"
    return response


@csrf_exempt
@signed_in
def upload(request: HttpRequest) -> HttpResponse:
    """The declared length is judged before a byte of the body is read; the CSRF check, which reads it, comes after."""
    if int(request.META.get("CONTENT_LENGTH") or 0) > 3 * settings.UPLOAD_MAX_BYTES:
        return render(request, "frontend/too_large.html", {"limit": settings.UPLOAD_MAX_BYTES}, status=413)
    return _upload(request)


@csrf_protect
@require_http_methods(["GET", "POST"])
def _upload(request: HttpRequest) -> HttpResponse:
    demand(request, Role.OPERATOR)
    form = UploadForm(request.POST or None, request.FILES or None)
    if request.method == "POST" and form.is_valid():
        values = form.cleaned_data
        try:
            made, _ = services.upload_version(
                family_name=values["family_name"],
                version_name=values["version_name"],
                onnx=values["onnx"].read(),
                calibration=values["calibration"].read(),
                evaluation=values["evaluation"].read(),
                actor=request.user.get_username(),
            )
        except services.UploadRefused as refusal:
            pages.add_refusal(form, refusal.field, f"{refusal.message}; {refusal.fix}.")
        else:
            return redirect("version", made.pk)
    status = 400 if form.is_bound and form.errors else 200
    return render(request, "frontend/upload.html", {"form": form, "families": known_families()}, status=status)
