"""REST: images that a runtime's own compiler made, and what was compiled into firmware."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest
from django.shortcuts import get_object_or_404
from ninja import File, Router, Schema, Status, UploadedFile
from ninja.errors import HttpError

from devices.api import FirmwareBuildOut, Id, ProfileName
from devices.models import FirmwareBuild
from fleet.accounts.authentication import actor_of, node_keeper, uploader
from updates import compiled, services
from updates.api import FitOut, ImageOut, ValidationOut
from updates.models import ModelImage, ModelVersion
from updates.pipeline.reports import MAXIMUM_REPORT_BYTES

router = Router()


class CompiledImageOut(Schema):
    """report: what was read of the compiler's report; sizes in bytes. fits: one a hardware profile."""

    image: ImageOut
    report: dict[str, Any]
    validation: ValidationOut
    fits: list[FitOut]

    @staticmethod
    def resolve_image(image: ModelImage) -> ModelImage:
        return image

    @staticmethod
    def resolve_report(image: ModelImage) -> dict[str, Any]:
        return dict(image.facts["report"])

    @staticmethod
    def resolve_fits(image: ModelImage) -> list[Any]:
        return list(image.fits.select_related("image", "profile").order_by("profile__name"))


@router.post(
    "/versions/{version_id}/compiled-images", response={201: CompiledImageOut}, auth=uploader, tags=["versions"]
)
def add_compiled_image(
    request: HttpRequest,
    version_id: Id,
    report: File[UploadedFile],
    image: File[UploadedFile],
    validation: UploadedFile | None = File(None),
    model: UploadedFile | None = File(None),
) -> Status[ModelImage]:
    """What ST Edge AI or TVM made of a ready version: `image` is the weights blob or relocatable binary that the slot
    holds, `report` network_c_info.json, the text report of `stedgeai generate`, or metadata.json of TVM.

    `validation`: the text report of `stedgeai validate` on the target; without one no campaign sends the image. `model`: the
    file that was compiled, where it is neither the version's ONNX nor one of its images.
    """
    version = get_object_or_404(ModelVersion.objects.select_related("family"), pk=version_id)
    made = compiled.add_compiled_image(
        version=version,
        report=_bytes("report", report, MAXIMUM_REPORT_BYTES),
        image=_bytes("image", image, services.MAXIMUM_UPLOAD_BYTES),
        validation=_bytes("validation", validation, MAXIMUM_REPORT_BYTES),
        model=_bytes("model", model, services.MAXIMUM_ONNX_BYTES),
        actor=actor_of(request),
    )
    return Status(201, made)


@router.post(
    "/firmware-builds/{name}/network-report", response=FirmwareBuildOut, auth=node_keeper, tags=["firmware builds"]
)
def set_network_report(request: HttpRequest, name: ProfileName, report: File[UploadedFile]) -> FirmwareBuild:
    """The report of the network that was compiled into this firmware: only weights that match it are sent to its nodes."""
    try:
        firmware = FirmwareBuild.objects.get(name=name)
    except FirmwareBuild.DoesNotExist as error:
        raise HttpError(404, f"name: there is no firmware build {name!r}; POST /firmware-builds makes one.") from error
    data = _bytes("report", report, MAXIMUM_REPORT_BYTES)
    return compiled.set_network_report(firmware=firmware, report=data, actor=actor_of(request))


def _bytes(field: str, file: UploadedFile | None, most: int) -> bytes:
    """Judged by its declared size before it is read."""
    if file is None:
        return b""
    if (file.size or 0) > most:
        raise services.UploadRefused(field, f"{file.size} bytes exceed the limit of {most}.", "Send a smaller file.")
    return bytes(file.read())
