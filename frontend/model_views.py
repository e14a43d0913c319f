"""Model versions, their comparison, and the patches between their images."""

from __future__ import annotations

from urllib.parse import urlencode

from django import forms
from django.conf import settings
from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.csrf import csrf_exempt, csrf_protect
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from fleet.accounts.models import Role
from frontend import model_pages, pages
from frontend.access import demand, signed_in
from frontend.forms import UploadForm, known_families
from frontend.memory_map import memory_page
from updates import comparison, judging, patch_catalogue, services
from updates import dossier as dossiers
from updates import selectors as updates
from updates.firmware_header import header_of
from updates.models import ModelFamily, ModelImage, ModelVersion, Patch
from updates.states import PatchState


@require_GET
@signed_in
def versions(request: HttpRequest) -> HttpResponse:
    rows = updates.versions(before=pages.key(request, "before"), limit=updates.PAGE + 1)
    page = rows[: updates.PAGE]
    context = {
        "versions": page,
        "next_before": page[-1].pk if len(rows) > updates.PAGE else None,
        "verdict": model_pages.versions_verdict(page),
    }
    return render(request, "frontend/versions.html", context)


@require_GET
@signed_in
def version(request: HttpRequest, version_id: int) -> HttpResponse:
    try:
        found = updates.version(version_id)
    except ModelVersion.DoesNotExist as error:
        raise Http404(f"No version {version_id}.") from error
    context = model_pages.version_page(found, wanted_slice=request.GET.get("slice", ""), now=timezone.now())
    if not request.htmx:  # type: ignore[attr-defined]
        return render(request, "frontend/version.html", context)
    response = render(request, "frontend/parts/build_progress.html", context)
    if not context["building"]:
        response["HX-Refresh"] = "true"
    return response


@require_POST
@signed_in
def judge_again(request: HttpRequest, version_id: int) -> HttpResponse:
    demand(request, Role.OPERATOR)
    try:
        judging.judge_again(version_id=version_id, actor=request.user.get_username())
    except ModelVersion.DoesNotExist as error:
        raise Http404(f"No version {version_id}.") from error
    except judging.NothingToJudge as refusal:
        messages.error(request, str(refusal))
    return redirect("version", version_id)


@require_GET
@signed_in
def memory(request: HttpRequest, version_id: int) -> HttpResponse:
    """?image=<digest>&profile=<name>: how that image lies in the arena of that profile; either may be left out."""
    try:
        image, profile = updates.image_and_profile(
            version_id=version_id, digest=request.GET.get("image", ""), profile=request.GET.get("profile", "")
        )
    except updates.NotFound as error:
        raise Http404(str(error)) from error
    return render(request, "frontend/memory.html", memory_page(image, profile))


@require_GET
@signed_in
def dossier(request: HttpRequest, version_id: int) -> HttpResponse:
    """The whole evidence of a version, to read and to print."""
    try:
        document = dossiers.dossier(version_id, now=timezone.now())
    except ModelVersion.DoesNotExist as error:
        raise Http404(f"No version {version_id}.") from error
    return render(request, "frontend/dossier.html", model_pages.dossier_page(document) | {"version_id": version_id})


@require_GET
@signed_in
def dossier_file(request: HttpRequest, version_id: int) -> HttpResponse:
    """The same, signed, as a file."""
    try:
        signed = dossiers.signed_dossier(version_id, now=timezone.now())
    except ModelVersion.DoesNotExist as error:
        raise Http404(f"No version {version_id}.") from error
    response = JsonResponse(signed, content_type="application/jose+json")
    response["Content-Disposition"] = f'attachment; filename="dossier-{version_id}.json"'
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
    form = UploadForm(
        request.POST or None, request.FILES or None, initial={"family_name": request.GET.get("family", "")[:64]}
    )
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
            pages.add_refusal(form, refusal.field, f"{refusal.message} {refusal.fix}")
        else:
            return redirect("version", made.pk)
    status = 400 if form.is_bound and form.errors else 200
    context = {"form": form, "families": known_families(), "under_way": updates.builds_under_way()}
    return render(request, "frontend/upload.html", context, status=status)


@require_GET
@signed_in
def compare(request: HttpRequest) -> HttpResponse:
    """?a=1&b=2; two ticks of the list come as ?v=2&v=1 and are led there, the older version first."""
    ticked = request.GET.getlist("v")
    if ticked:
        if len(ticked) != 2 or not all(one.isascii() and one.isdigit() and len(one) < 19 for one in ticked):
            messages.error(request, f"{pages.plural(len(ticked), 'version is', 'versions are')} ticked: tick two.")
            return redirect("versions")
        a, b = sorted(int(one) for one in ticked)
        return redirect(f"{reverse('version-compare')}?{urlencode({'a': a, 'b': b})}")
    a_id, b_id = pages.key(request, "a"), pages.key(request, "b")
    if a_id is None or b_id is None:
        messages.error(request, "Fewer than two versions are ticked: tick two.")
        return redirect("versions")
    try:
        found = comparison.compare(a_id, b_id)
    except ModelVersion.DoesNotExist as error:
        raise Http404(f"No version {a_id} or {b_id}.") from error
    except comparison.NotComparable as refusal:
        messages.error(request, str(refusal))
        return redirect("versions")
    context = {"found": found, "verdict": model_pages.comparison_verdict(found)}
    return render(request, "frontend/compare.html", context)


class PatchFilterForm(forms.Form):
    """An unknown value does not filter; the page says which it was."""

    state = forms.ChoiceField(required=False, choices=[("", "any state"), *PatchState.choices])
    family = forms.ModelChoiceField(ModelFamily.objects.none(), required=False, empty_label="any family")

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self.fields["family"].queryset = ModelFamily.objects.order_by("name")  # type: ignore[attr-defined]
        for field in self.fields.values():
            field.widget.attrs["class"] = "select"


@require_GET
@signed_in
def patches(request: HttpRequest) -> HttpResponse:
    form = PatchFilterForm(request.GET)
    form.is_valid()
    family = form.cleaned_data.get("family")
    wanted = {"state": form.cleaned_data.get("state") or "", "family": family.pk if family else ""}
    rows = patch_catalogue.patch_rows(
        state=wanted["state"],
        family_id=family.pk if family else None,
        before=pages.key(request, "before"),
        limit=patch_catalogue.PAGE + 1,
    )
    page = rows[: patch_catalogue.PAGE]
    context = {
        "form": form,
        "rows": page,
        "filtered": any(wanted.values()),
        "query": urlencode({name: value for name, value in wanted.items() if value}),
        "next_before": page[-1].patch.pk if len(rows) > patch_catalogue.PAGE else None,
        "verdict": model_pages.patches_verdict(patch_catalogue.states_of_patches()),
    }
    return render(request, "frontend/patches.html", context)


@require_POST
@signed_in
def build_patch_again(request: HttpRequest, patch_id: int) -> HttpResponse:
    demand(request, Role.OPERATOR)
    try:
        services.build_patch_again(patch_id=patch_id, actor=request.user.get_username())
    except Patch.DoesNotExist as error:
        raise Http404(f"No patch {patch_id}.") from error
    except services.PatchNotFailed as refusal:
        messages.error(request, str(refusal))
    return redirect("patches")


@require_GET
@signed_in
def guard_header(request: HttpRequest, digest: str) -> HttpResponse:
    """What firmware for this image is compiled with."""
    try:
        name, text = header_of(digest)
    except ModelImage.DoesNotExist as error:
        raise Http404(f"No image {digest[:64]}.") from error
    response = HttpResponse(text, content_type="text/x-c; charset=utf-8")
    response["Content-Disposition"] = f'attachment; filename="{name}"'
    return response
