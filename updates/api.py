"""REST: model families and versions, and the list of nodes with its filter. Campaigns: updates.campaigns.api."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.utils import timezone
from ninja import Field, File, Form, Path, Router, Schema, Status, UploadedFile
from ninja.errors import HttpError

from devices.api import After, Id, Limit, NodeOut, Strict, nodes
from devices.models import Node
from devices.paging import Cursor, page_of_nodes
from fleet.accounts.authentication import actor_of, uploader, viewer
from fleet.blobs.models import load
from updates import judging, selectors, services
from updates.dossier import signed_dossier
from updates.firmware_header import header_of
from updates.models import Fit, ModelFamily, ModelImage, ModelVersion, ValidationReport
from updates.node_filter import nodes_matching
from updates.version_document import version_document

router = Router()
Digest = Annotated[str, Path(pattern="^[0-9a-f]{64}$")]


class FamilyIn(Strict):
    name: str
    preprocessing: str = "none"
    class_names: list[str] = []
    limits: dict[str, Any] = {}
    task: Literal["auto", "classification", "anomaly", "regression"] = "auto"
    signal: dict[str, int | float | None] = {}


class FamilyOut(Schema):
    id: int
    name: str
    model_id: str
    preprocessing: str
    class_names: list[str]
    limits: dict[str, Any]
    task: str
    signal: dict[str, Any]


class ImageOut(Schema):
    """arena_bytes: the bisected minimum in the TFLM interpreter. chosen_for: names of the profiles that get this image."""

    digest: str
    runtime: str
    precision: str
    granularity: str
    alignment: int
    size: int
    arena_bytes: int
    operators: list[str]
    io_hash: str
    self_test_digest: str
    chosen_for: list[str]

    @staticmethod
    def resolve_chosen_for(image: ModelImage) -> list[str]:
        return [fit.profile.name for fit in image.fits.all() if fit.rank == 0 and fit.fits]


class VersionOut(Schema):
    """refusal: {stage, code, field, message, fix} once it is refused. judge_again: it was asked for and is not done."""

    id: int
    family: str = Field(alias="family.name")
    name: str
    digest: str
    state: str
    stage: str
    percent: int = Field(alias="progress_percent")
    refusal: dict[str, Any] | None
    judge_again: bool
    images: list[ImageOut]
    uploaded_by: str
    created_at: datetime
    built_at: datetime | None

    @staticmethod
    def resolve_images(version: ModelVersion) -> list[ModelImage]:
        return list(version.images.all())


class FitOut(Schema):
    image: str = Field(alias="image.known_id")
    profile: str = Field(alias="profile.name")
    fits: bool
    numbers: dict[str, Any]
    reasons: list[str]


class ValidationOut(Schema):
    image: str = Field(alias="image.known_id")
    verdict: str
    slices: list[dict[str, Any]]
    reasons: list[str]


class SignedOut(Schema):
    payload: str
    protected: str
    signature: str


class NodesOut(Schema):
    """next: what to send as `after` for the page that follows; null at the end."""

    nodes: list[NodeOut]
    next: int | None


class CountOut(Schema):
    count: int


@router.post("/families", response={200: FamilyOut, 201: FamilyOut}, auth=uploader, tags=["versions"])
def add_family(request: HttpRequest, family: FamilyIn) -> Status[ModelFamily]:
    made, created = services.ensure_family(**family.dict(), actor=actor_of(request))
    return Status(201 if created else 200, made)


@router.post("/versions", response={200: VersionOut, 201: VersionOut}, auth=uploader, tags=["versions"])
def upload_version(
    request: HttpRequest,
    family: Form[str],
    name: Form[str],
    onnx: File[UploadedFile],
    calibration: File[UploadedFile],
    evaluation: File[UploadedFile],
) -> Status[ModelVersion]:
    """201 for a new version, 200 where the same files were uploaded under this name before. Then poll its state."""
    version, created = services.upload_version(
        family_name=family,
        version_name=name,
        onnx=onnx.read(),
        calibration=calibration.read(),
        evaluation=evaluation.read(),
        actor=actor_of(request),
    )
    return Status(201 if created else 200, version)


@router.get("/versions", response=list[VersionOut], auth=viewer, tags=["versions"])
def list_versions(request: HttpRequest, before: Id | None = None, limit: Limit = 50) -> object:
    """Newest first; send the last id as `before` for the next page."""
    return selectors.versions(before=before, limit=limit)


@router.get("/versions/{version_id}", response=VersionOut, auth=viewer, tags=["versions"])
def get_version(request: HttpRequest, version_id: Id) -> ModelVersion:
    return get_object_or_404(selectors.whole_versions(), pk=version_id)


@router.post("/versions/{version_id}/judge-again", response={202: VersionOut}, auth=uploader, tags=["versions"])
def judge_version_again(request: HttpRequest, version_id: Id) -> Status[ModelVersion]:
    """Proves a ready version for profiles that were made after it was built. Poll `judge_again` until it is false; 409 where
    no profile lacks a verdict that this could give."""
    get_object_or_404(ModelVersion, pk=version_id)
    try:
        version = judging.judge_again(version_id=version_id, actor=actor_of(request))
    except judging.NothingToJudge as error:
        raise HttpError(409, str(error)) from error
    return Status(202, version)


@router.get("/versions/{version_id}/fit", response=list[FitOut], auth=viewer, tags=["versions"])
def get_fit(request: HttpRequest, version_id: Id) -> object:
    """One verdict an image and profile; none before the version is built."""
    version = get_object_or_404(ModelVersion, pk=version_id)
    return Fit.objects.filter(image__version=version).select_related("image", "profile").order_by("image", "profile")


@router.get("/versions/{version_id}/validation", response=list[ValidationOut], auth=viewer, tags=["versions"])
def get_validation(request: HttpRequest, version_id: Id) -> object:
    version = get_object_or_404(ModelVersion, pk=version_id)
    return ValidationReport.objects.filter(image__version=version).select_related("image").order_by("image")


@router.get("/versions/{version_id}/evaluation", response=dict[str, Any], auth=viewer, tags=["versions"])
def get_evaluation(request: HttpRequest, version_id: Id) -> dict[str, Any]:
    """The whole evidence, as `manage.py evaluate_model --json` writes it: docs/evaluation.md."""
    return version_document(get_object_or_404(ModelVersion, pk=version_id))


@router.get("/images/{digest}/guard.h", auth=viewer, tags=["versions"], response={200: None})
def get_guard_header(request: HttpRequest, digest: Digest) -> HttpResponse:
    """What firmware for this image is compiled with: contract, self-test, guard and hooks (docs/guard.md)."""
    get_object_or_404(ModelImage, known=digest)
    return HttpResponse(header_of(digest)[1], content_type="text/x-c; charset=utf-8")


@router.get("/versions/{version_id}/dossier", response=SignedOut, auth=viewer, tags=["versions"])
def get_dossier(request: HttpRequest, version_id: Id) -> dict[str, str]:
    """All evidence of a version as signed JSON: a flattened JWS (RFC 7515) by the active signing key (EdDSA).

    `payload` is the base64url of the document; `manage.py verify_dossier` checks and prints it, as does any JOSE library.
    """
    try:
        return signed_dossier(version_id, now=timezone.now())
    except ModelVersion.DoesNotExist as error:
        raise Http404 from error


@router.get("/images/{digest}/data", auth=viewer, tags=["versions"], response={200: None})
def get_image_data(request: HttpRequest, digest: Digest) -> HttpResponse:
    """The exact bytes of the model slot, as a factory would write them."""
    image = get_object_or_404(ModelImage, known=digest)
    return HttpResponse(load(image.blob_id), content_type="application/octet-stream")


@nodes.get("", response=NodesOut, auth=viewer)
def list_nodes(
    request: HttpRequest,
    filter: str = "",
    after: After = 0,
    limit: Limit = 100,
) -> dict[str, object]:
    ids = page_of_nodes(nodes_matching(filter, now=timezone.now()), cursor=Cursor(after), limit=limit)
    page = Node.objects.filter(pk__in=ids).select_related("profile", "firmware_build", "presence").order_by("pk")
    return {"nodes": list(page), "next": ids[-1] if len(ids) == limit else None}


@nodes.get("/count", response=CountOut, auth=viewer)
def count_nodes(request: HttpRequest, filter: str = "") -> dict[str, int]:
    """Checks a filter: how many nodes it finds, or a problem that says at which `position` (from 0; `line` and `column`
    from 1) what was `expected`, and the `fix`."""
    return {"count": nodes_matching(filter, now=timezone.now()).count()}
