"""REST: the patches that there are, and another try for one that failed."""

from __future__ import annotations

from datetime import datetime

from django.http import HttpRequest
from django.shortcuts import get_object_or_404
from ninja import Router, Schema
from ninja.errors import HttpError

from devices.api import Id, Limit
from fleet.accounts.authentication import actor_of, uploader, viewer
from updates import patch_catalogue, services
from updates.models import Patch
from updates.states import PatchState

router = Router(tags=["patches"])


class PatchOut(Schema):
    """size and saving (a share of the full image, 0 to 1) are null before it is built. holding: nodes that run the
    base; able: those of them with the decoder that it is built for (bsdiff, s or l); waiting: nodes that a campaign brings it
    to. direction: forward to a later version, or reverse."""

    id: int
    family: str
    base_version: str
    base: str
    target_version: str
    target: str
    decoder: str
    direction: str
    state: str
    codec: int | None
    size: int | None
    full_size: int
    saving: float | None
    holding: int
    able: int
    waiting: int
    attempts: int
    build_ms: int | None
    built_at: datetime | None
    created_at: datetime
    failure: str


def _out(row: patch_catalogue.PatchRow) -> PatchOut:
    patch = row.patch
    return PatchOut(
        id=patch.pk,
        family=patch.target.version.family.name,
        base_version=patch.base.version.name,
        base=patch.base.digest,
        target_version=patch.target.version.name,
        target=patch.target.digest,
        decoder=patch.decoder,
        direction=patch.direction,
        state=patch.state,
        codec=patch.codec,
        size=row.size,
        full_size=patch.target.size,
        saving=row.saving,
        holding=row.holding,
        able=row.able,
        waiting=row.waiting,
        attempts=patch.attempts,
        build_ms=patch.build_ms,
        built_at=patch.built_at,
        created_at=patch.created_at,
        failure=patch.failure,
    )


@router.get("", response=list[PatchOut], auth=viewer)
def list_patches(
    request: HttpRequest,
    state: PatchState | None = None,
    family_id: Id | None = None,
    before: Id | None = None,
    limit: Limit = 50,
) -> list[PatchOut]:
    """Newest first; send the last id as `before` for the next page."""
    rows = patch_catalogue.patch_rows(state=state or "", family_id=family_id, before=before, limit=limit)
    return [_out(row) for row in rows]


@router.post("/{patch_id}/build-again", response=PatchOut, auth=uploader)
def build_again(request: HttpRequest, patch_id: Id) -> PatchOut:
    """Puts a patch that failed back in the queue; 409 for any other."""
    get_object_or_404(Patch, pk=patch_id)
    try:
        services.build_patch_again(patch_id=patch_id, actor=actor_of(request))
    except services.PatchNotFailed as refusal:
        raise HttpError(409, str(refusal)) from refusal
    return _out(patch_catalogue.patch_row(patch_id))
