"""Judging a ready version again, for profiles that were made after it was built.

Such a profile may want an image that was never shown perturbed slices, so nothing of the version is sent to its nodes; or
one whose alignment no image has. The stored bytes are judged, what is missing is built, and verdicts that were reached stay.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime

from django.db import transaction
from django.db.models import QuerySet

from devices.models import HardwareProfile
from fleet.audit.models import record
from fleet.blobs.models import load
from fleet.operations.wakeups import wake
from updates import models, selectors
from updates.builds import build_request, give_up_refused_image, report_fields, store_image
from updates.fits import fit_images
from updates.leases import MAXIMUM_ATTEMPTS, Work, held, work_off
from updates.models import ModelImage, ModelVersion
from updates.pipeline import build as pipeline
from updates.pipeline.choice import noise_db
from updates.pipeline.types import BuildRequest, BuildResult, Existing, Refused, TargetClass
from updates.pipeline.validate import UNPROVED
from updates.profiles import pipeline_profile, targets_for
from updates.states import VersionState


class NothingToJudge(Exception):
    """`str()` says why in one sentence."""


def profiles_lacking(images: Iterable[ModelImage]) -> list[HardwareProfile]:
    """Profiles that a judgement may help, by name. images: of one version, with validation and fits and their profiles."""
    ours = [image for image in images if image.runtime == "tflm"]
    by_profile: defaultdict[HardwareProfile, list[tuple[models.Fit, ModelImage]]] = defaultdict(list)
    for image in ours:
        for fit in image.fits.all():
            by_profile[fit.profile].append((fit, image))
    lacking = []
    for profile, rows in by_profile.items():
        fit, image = min(rows, key=lambda row: row[0].rank)
        wanted = max(profile.alignment, profile.cache_line_bytes)
        misaligned = not fit.fits and all(one.alignment % wanted for one in ours)
        if profile.runtime == "tflm" and (misaligned or (fit.fits and _unproved(image))):
            lacking.append(profile)
    return sorted(lacking, key=lambda profile: profile.name)


def _unproved(image: ModelImage) -> bool:
    report = getattr(image, "validation", None)
    return report is None or (report.verdict == "inconclusive" and UNPROVED in report.reasons)


@transaction.atomic
def judge_again(*, version_id: int, actor: str) -> ModelVersion:
    """Asks for it; asked twice, it is done once. Raises ModelVersion.DoesNotExist and NothingToJudge."""
    ModelVersion.objects.select_for_update().get(pk=version_id)
    version = selectors.version(version_id)
    if version.state != VersionState.READY:
        raise NothingToJudge(f"{version} is {version.state}: only a ready version is judged again.")
    if version.judge_again:
        return version
    lacking = [profile.name for profile in profiles_lacking(version.images.all())]
    if not lacking:
        raise NothingToJudge(f"There is no profile that {version} could be judged for and was not.")
    ModelVersion.objects.filter(pk=version.pk).update(
        judge_again=True, attempts=0, lease_until=None, stage="", progress_percent=0
    )
    record(actor=actor, action="version.judge_again", subject=version, after={"profiles": lacking})
    wake("updates.tasks.build_due")
    return selectors.version(version_id)


def judge_due(now: datetime, limit: int = 1) -> int:
    """Judges up to `limit` versions that wait, or whose worker was lost; returns how many it ended. Raises as a build does."""
    return work_off(_JUDGING, now, limit)


def _give_up(version: ModelVersion) -> None:
    _end(version, refusal=f"It ended without a verdict {MAXIMUM_ATTEMPTS} times.")


def _judge(version: ModelVersion, mine: QuerySet[ModelVersion], now: datetime) -> None:
    def report_progress(stage: str, fraction: float) -> None:
        mine.update(stage=stage, progress_percent=round(100 * fraction))

    with held(mine, now):
        try:
            request = _request(selectors.version(version.pk))
            result = pipeline.build(request, report_progress) if request.profiles else None
            refusal = ""
        except Refused as refused:
            result, refusal = None, str(refused)
        with transaction.atomic():
            if current := mine.select_for_update(of=("self",)).first():
                try:
                    with transaction.atomic():
                        verdicts = _store(current, result) if result is not None else {}
                except Refused as refused:  # an image that was built for an alignment could not be told in reports
                    verdicts, refusal = {}, str(refused)
                _end(current, refusal=refusal, verdicts=verdicts)


_JUDGING = Work(ModelVersion.objects.select_related("family").filter(judge_again=True), _judge, _give_up)


def _request(version: ModelVersion) -> BuildRequest:
    """Of what is stored, and of target classes that a profile's alignment asks for; without profiles nothing is lacking."""
    images = [image for image in version.images.all() if image.runtime == "tflm"]
    profiles = tuple(pipeline_profile(profile) for profile in profiles_lacking(images))
    there = {_target(image) for image in images}
    aligned = {max(one.alignment, one.cache_line_bytes) for one in profiles}
    missing = any(all(one.alignment % wanted for one in there) for wanted in aligned)
    return replace(
        build_request(version),
        profiles=profiles,
        targets=tuple(one for one in targets_for(profiles) if one not in there) if missing else (),
        existing=tuple(Existing(_target(image), load(image.blob_id)) for image in images),
        against=None,
    )


def _target(image: ModelImage) -> TargetClass:
    return TargetClass(image.runtime, image.precision, image.granularity, image.alignment)


def _store(version: ModelVersion, result: BuildResult) -> dict[str, str]:
    """Verdicts by digest of what was proved now, in the caller's transaction. Raises Refused as a build does."""
    known = {image.digest: image for image in version.images.select_related("validation")}
    noise = noise_db(result.reports)
    found: dict[str, str] = {}
    for image in result.images:
        report = result.reports[image.digest]
        row = known.get(image.digest)
        if row is not None and not _unproved(row):
            continue
        if row is None:
            give_up_refused_image(image.digest, version)
            row = store_image(version, image, noise[image.digest], result.guards.get(image.digest), {})
        models.ValidationReport.objects.update_or_create(image=row, defaults=report_fields(report))
        if UNPROVED not in report.reasons:
            found[image.digest] = report.verdict
    fit_images(ModelImage.objects.filter(version=version), HardwareProfile.objects.all())
    return found


def _end(version: ModelVersion, *, refusal: str = "", verdicts: dict[str, str] | None = None) -> None:
    """In the caller's transaction. What was refused is kept for people to read; the version stays as ready as it was."""
    version.judge_again, version.lease_until, version.stage, version.progress_percent = False, None, "done", 100
    version.evidence = {key: value for key, value in version.evidence.items() if key != "judging_refusal"}
    if refusal:
        version.evidence["judging_refusal"] = refusal
    version.save(update_fields=["judge_again", "lease_until", "stage", "progress_percent", "evidence"])
    after = {"refusal": refusal} if refusal else {"verdicts": verdicts or {}}
    record(actor="pipeline", action="version.judged_again", subject=version, after=after)
