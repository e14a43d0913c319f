"""Images that a runtime's own compiler made (ST Edge AI, TVM): taken in with its report, which is their evidence.

Nothing here can run them. Size and memory come from the compiler's report; that they decide like the original comes
from ST's validation on the target, and without one the image is stored as inconclusive, which no campaign sends.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from django.db import transaction

from devices.models import FirmwareBuild
from devices.services import PrefixClash, register_image
from fleet.audit.models import record
from fleet.blobs.models import load, store
from updates.fits import fit_again
from updates.models import ModelImage, ModelVersion, ValidationReport
from updates.pipeline.reports import MAXIMUM_REPORT_BYTES, read_report
from updates.pipeline.reports.st_validation import Evaluation
from updates.pipeline.reports.st_validation import read as read_evaluations
from updates.pipeline.reports.types import ReportInvalid, RuntimeReport
from updates.pipeline.reports.verdict import judge_evaluations
from updates.pipeline.types import ValidationLimits
from updates.services import UploadConflict, UploadRefused
from updates.states import VersionState

MOST_RAM_BYTES = 2**31 - 1
NO_SELF_TEST = "00" * 8


@transaction.atomic
def add_compiled_image(
    *, version: ModelVersion, report: bytes, image: bytes, validation: bytes, model: bytes, actor: str
) -> ModelImage:
    """Stores the bytes of a model slot with what their compiler says of them, and judges them on every profile.

    `validation`: text report of `stedgeai validate`, may be empty. `model`: the file that the compiler was given where it
    is neither the version's ONNX nor one of its images (a quantized export, say); may be empty.
    Raises UploadRefused, and UploadConflict where the image is there already.
    """
    if version.state != VersionState.READY:
        raise UploadRefused("version", f"{version} is {version.state}.", "Wait until it is ready.")
    understood = _read(report)
    _check_size(understood, image)
    _check_signature(understood, version, model)
    evaluations = _evaluations(validation)
    digest = hashlib.sha256(image).hexdigest()
    target = {
        "runtime": understood.runtime,
        "precision": "compiled",
        "granularity": _target(understood),
        "alignment": 0,
    }
    if existing := ModelImage.objects.filter(known=digest).select_related("version__family").first():
        raise UploadConflict("image", f"These bytes are an image of {existing.version} already.", "Use that one.")
    if version.images.filter(**target).exists():
        raise UploadConflict(
            "image", f"{version} has an image for {understood.runtime} {target['granularity']}.", "Make a new version."
        )
    contract = version.images.exclude(io_hash="").order_by("id").values_list("io_hash", flat=True).first()
    if contract is None:
        raise UploadRefused("version", f"{version} has no image whose contract this one could keep.", "Build it first.")
    made = ModelImage.objects.create(
        version=version,
        **target,
        known=_register(digest),
        blob=store(image),
        size=len(image),
        arena_bytes=understood.ram_bytes,
        operators=[],
        io_hash=contract,
        self_test_digest=NO_SELF_TEST,
        facts={"report": understood.document(), "report_digest": hashlib.sha256(report).hexdigest()},
    )
    verdict = judge_evaluations(evaluations, ValidationLimits.of(version.family.limits))
    ValidationReport.objects.create(
        image=made, verdict=verdict.verdict, slices=verdict.slices, reasons=list(verdict.reasons)
    )
    fit_again(made)
    after = {"version": version.pk, "runtime": made.runtime, "target": made.granularity, "verdict": verdict.verdict}
    record(actor=actor, action="image.compiled", subject=made, after=after)
    return made


def set_network_report(*, firmware: FirmwareBuild, report: bytes, actor: str) -> FirmwareBuild:
    """Keeps what was compiled into a firmware, against which new weights are compared. Raises UploadRefused."""
    understood = _read(report)
    if firmware.runtime != understood.runtime:
        raise UploadRefused(
            "report", f"It is of {understood.runtime}, {firmware} runs {firmware.runtime}.", "Send that one's report."
        )
    with transaction.atomic():
        firmware.network_report = understood.document()
        firmware.save(update_fields=["network_report"])
        after = {"tool": f"{understood.tool} {understood.tool_version}", "graph": understood.graph_digest}
        record(actor=actor, action="firmware_build.network_report", subject=firmware, after=after)
    return firmware


def _read(report: bytes) -> RuntimeReport:
    try:
        understood = read_report(report)
    except ReportInvalid as error:
        raise UploadRefused(f"report.{error.field}", f"{error.message}.", f"{error.fix}.") from error
    if "\\u0000" in json.dumps(understood.document()):
        raise UploadRefused("report", "A name in it holds U+0000.", "Send the tool's own file.")
    if understood.ram_bytes > MOST_RAM_BYTES:
        raise UploadRefused("report", f"It says {understood.ram_bytes} bytes of RAM.", "Send the tool's own file.")
    return understood


def _check_size(report: RuntimeReport, image: bytes) -> None:
    if not image or len(image) != report.slot_bytes:
        raise UploadRefused(
            "image",
            f"It has {len(image)} bytes, the report says {report.slot_bytes}.",
            "Send the weights or the relocatable binary of the run that wrote the report.",
        )


def _check_signature(report: RuntimeReport, version: ModelVersion, model: bytes) -> None:
    """ST signs the file that it was given by MD5. TVM names none."""
    signature = report.model_signature.lower().removeprefix("0x")
    if not signature:
        return
    files = [model] if model else [load(version.onnx_id), *(load(one.blob_id) for one in version.images.all())]
    # MD5 here tells files apart, it protects nothing.
    if signature not in [hashlib.md5(data, usedforsecurity=False).hexdigest() for data in files]:
        raise UploadRefused(
            "report.model_signature",
            f"The report is of a file with signature {signature}, which is not the MD5 of "
            + ("the model that came with it." if model else f"the network of {version}, nor of an image of it."),
            "Compile the version's own file, or send the one that was compiled as `model`.",
        )


def _evaluations(validation: bytes) -> tuple[Evaluation, ...]:
    if not validation:
        return ()
    if len(validation) > MAXIMUM_REPORT_BYTES:
        raise UploadRefused("validation", f"{len(validation)} bytes are too many.", "Send the text report alone.")
    try:
        return read_evaluations(validation.decode("utf-8", "replace"))
    except ReportInvalid as error:
        raise UploadRefused(f"validation.{error.field}", f"{error.message}.", f"{error.fix}.") from error


def _target(report: RuntimeReport) -> str:
    return f"{report.form} {report.series}".strip()[:24]


def _register(digest: str) -> Any:
    try:
        return register_image(digest)
    except PrefixClash as clash:
        raise UploadConflict("image", f"{clash}.", "Compile it again with any weight changed.") from clash
