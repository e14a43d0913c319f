"""Fleet and model versions."""

from __future__ import annotations

from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.views.decorators.csrf import csrf_exempt, csrf_protect
from django.views.decorators.http import require_GET, require_http_methods

from fleet.accounts.models import Role
from frontend import pages, selectors
from frontend.access import demand, signed_in
from frontend.forms import UploadForm, known_families
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
