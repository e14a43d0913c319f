"""The evidence of a version on paper: the dossier to print, and the C header for the firmware."""

from __future__ import annotations

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET

from frontend.access import signed_in
from updates.dossier import signed_dossier
from updates.firmware_header import header_of
from updates.models import ModelImage, ModelVersion


@require_GET
@signed_in
def dossier(request: HttpRequest, version_id: int) -> HttpResponse:
    try:
        signed = signed_dossier(version_id)
    except ModelVersion.DoesNotExist as error:
        raise Http404(f"No version {version_id}.") from error
    return render(request, "frontend/dossier.html", {"signed": signed, "version_id": version_id, **signed["dossier"]})


@require_GET
@signed_in
def guard_header(request: HttpRequest, digest: str) -> HttpResponse:
    try:
        name, text = header_of(digest)
    except ModelImage.DoesNotExist as error:
        raise Http404(f"No image {digest[:64]}.") from error
    response = HttpResponse(text, content_type="text/x-c; charset=utf-8")
    response["Content-Disposition"] = f'attachment; filename="{name}"'
    return response
