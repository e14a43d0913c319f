"""A profile that was made after a version was built gets its verdict, without a new version."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta

import pytest
from django.db import connection
from django.test import Client

from devices.models import HardwareProfile
from fleet.accounts.models import Role
from fleet.audit.models import AuditEntry
from tests import factories
from tests.integration.api.conftest import Caller, call  # noqa: F401 - a fixture
from tests.integration.frontend.conftest import sign_in  # noqa: F401 - a fixture
from tests.integration.updates.test_version_builds import NOW, upload
from updates.builds import build_due
from updates.campaigns.eligibility import NodeKind, choose, images_of
from updates.fits import refit
from updates.judging import NothingToJudge, judge_again, judge_due, profiles_lacking
from updates.models import Fit, ModelImage, ModelVersion, ValidationReport
from updates.pipeline.post_pass import misaligned_buffers
from updates.pipeline.validate import UNPROVED
from updates.selectors import version as whole_version
from updates.services import ensure_family

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("stages_run_once")]
SignIn = Callable[[Role], Client]
ROOMY = {"slot_bytes": 262_144, "sram_bytes": 131_072, "reserved_sram_bytes": 32_768}


def built(**limits: float) -> ModelVersion:
    ensure_family(name="imu", limits=limits, actor="test")
    HardwareProfile.objects.create(name="roomy", **ROOMY)
    version = upload("imu-1.0", "1.0")
    build_due(NOW, 1)
    version.refresh_from_db()
    assert version.state == "ready", version.refusal
    return version


def late_profile(**fields: int) -> HardwareProfile:
    profile = HardwareProfile.objects.create(name="late", **ROOMY | fields)
    refit(profile)
    return profile


def narrow_profile(version: ModelVersion) -> tuple[HardwareProfile, ModelImage]:
    """Its slot holds the smallest image alone, which no profile got when the version was built."""
    smallest, second = version.images.order_by("size")[:2]
    assert smallest.size < second.size
    assert UNPROVED in smallest.validation.reasons
    return late_profile(slot_bytes=smallest.size), smallest


def lacking(version: ModelVersion) -> list[str]:
    return [profile.name for profile in profiles_lacking(whole_version(version.pk).images.all())]


def test_what_the_late_profile_wants_is_proved_and_may_be_sent_and_other_verdicts_stay() -> None:
    version = built(maximum_class_recall_drop=0.3, minimum_agreement=0.8, maximum_accuracy_drop=0.1)
    assert lacking(version) == []
    late, wanted = narrow_profile(version)
    assert lacking(version) == ["late"]
    assert wanted not in images_of(version)
    firmware = factories.make_firmware(io_hash=wanted.io_hash, operators=wanted.operators)
    kind = NodeKind(late.pk, firmware.pk, None, None, None)
    refused = choose(kind=kind, images=images_of(version), profile=late, firmware=firmware)
    assert (refused.cause, f"POST /versions/{version.pk}/judge-again" in refused.reason) == ("not-validated", True)
    others = ValidationReport.objects.exclude(image=wanted)
    before = list(others.order_by("pk").values())
    digests = set(version.images.values_list("known_id", flat=True))

    judge_again(version_id=version.pk, actor="ci")
    assert judge_due(NOW, 1) == 1

    version.refresh_from_db()
    assert (version.state, version.judge_again, version.lease_until) == ("ready", False, None)
    report = ValidationReport.objects.get(image=wanted)
    assert report.verdict == "passed", report.reasons
    assert {"clean", "noise-10db", "dropouts"} <= {one["name"] for one in report.slices}
    assert wanted in images_of(version)
    assert choose(kind=kind, images=images_of(version), profile=late, firmware=firmware).image == wanted
    assert list(others.order_by("pk").values()) == before
    assert set(version.images.values_list("known_id", flat=True)) == digests
    assert lacking(version) == []
    said = AuditEntry.objects.filter(object_id=str(version.pk), action__startswith="version.judge").order_by("id")
    assert [(one.actor, one.action, one.after) for one in said] == [
        ("ci", "version.judge_again", {"profiles": ["late"]}),
        ("pipeline", "version.judged_again", {"verdicts": {wanted.digest: "passed"}}),
    ]
    assert judge_due(NOW, 1) == 0


@pytest.mark.long
def test_images_with_the_alignment_of_a_late_profile_are_built_beside_the_others() -> None:
    version = built()
    late = late_profile(cache_line_bytes=64)
    assert lacking(version) == ["late"]

    judge_again(version_id=version.pk, actor="ci")
    judge_due(NOW, 1)

    image = version.images.get(fits__profile=late, fits__rank=0, fits__fits=True)
    assert (image.alignment, image.validation.verdict) == (64, "passed")
    assert misaligned_buffers(bytes(image.blob.data), 64) == []
    assert Fit.objects.get(profile__name="roomy", rank=0).image.alignment == 16
    assert version.images.count() == 8
    assert lacking(version) == []


def test_where_every_profile_has_its_verdict_there_is_nothing_to_judge() -> None:
    profile = factories.make_profile()
    version = factories.make_version()
    refit(profile)

    with pytest.raises(NothingToJudge, match="There is no profile"):
        judge_again(version_id=version.pk, actor="ci")
    with pytest.raises(NothingToJudge, match="only a ready version"):
        judge_again(version_id=factories.make_version(state="building").pk, actor="ci")


def wanting() -> ModelVersion:
    """A version of which a profile wants an image that was not proved; its files are no network."""
    version = factories.make_version()
    version.images.get().validation.delete()
    ValidationReport.objects.create(image=version.images.get(), verdict="inconclusive", slices=[], reasons=[UNPROVED])
    refit(factories.make_profile(name="late"))
    return version


def test_an_image_with_too_few_samples_is_not_judged_again() -> None:
    version = wanting()
    ValidationReport.objects.update(reasons=["clean: Too few samples: 5, 100 are needed."])

    assert lacking(version) == []


def test_a_refusal_is_kept_and_the_version_stays_ready() -> None:
    version = wanting()
    judge_again(version_id=version.pk, actor="ci")

    assert judge_due(NOW, 1) == 1

    version.refresh_from_db()
    assert (version.state, version.judge_again) == ("ready", False)
    assert version.evidence["judging_refusal"].startswith("onnx: ")
    assert version.images.get().validation.verdict == "inconclusive"
    judge_again(version_id=version.pk, actor="ci")
    assert ModelVersion.objects.get().judge_again


def test_a_worker_that_was_killed_loses_its_lease_not_the_work_and_three_times_end_it() -> None:
    version = wanting()
    judge_again(version_id=version.pk, actor="ci")
    ModelVersion.objects.update(attempts=1, lease_until=NOW + timedelta(minutes=2))
    assert judge_due(NOW, 1) == 0
    ModelVersion.objects.update(attempts=3)

    assert judge_due(NOW + timedelta(minutes=3), 1) == 1

    version.refresh_from_db()
    assert version.evidence["judging_refusal"] == "It ended without a verdict 3 times."
    assert not version.judge_again


def test_a_worker_that_lost_its_lease_writes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    from updates import judging

    version = wanting()
    judge_again(version_id=version.pk, actor="ci")
    real = judging.pipeline.build

    def overtaken(*arguments: object) -> object:
        ModelVersion.objects.update(attempts=2)
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(judging.pipeline, "build", overtaken)
    judge_due(NOW, 1)

    version.refresh_from_db()
    assert version.judge_again
    assert "judging_refusal" not in version.evidence


def test_a_build_and_a_judgement_do_not_take_up_each_others_versions() -> None:
    waiting, judged = upload("imu-unsupported", "1.2"), wanting()
    judge_again(version_id=judged.pk, actor="ci")

    assert build_due(NOW, 5) == 1
    waiting.refresh_from_db()
    assert waiting.state == "refused"
    assert judge_due(NOW, 5) == 1


def test_over_rest_it_needs_the_scope_of_uploads_and_is_asked_for_once(call: Caller) -> None:  # noqa: F811
    version = wanting()
    address = f"/versions/{version.pk}/judge-again"

    assert call("viewer", "POST", address).status_code == 403
    for _ in range(2):
        answer = call("operator", "POST", address)
        assert (answer.status_code, answer.json()["judge_again"]) == (202, True)
    assert AuditEntry.objects.filter(action="version.judge_again").count() == 1
    judge_due(NOW, 1)
    assert call("viewer", "GET", f"/versions/{version.pk}").json()["judge_again"] is False
    ValidationReport.objects.update(reasons=[])
    refused = call("operator", "POST", address)
    assert (refused.status_code, "There is no profile" in refused.json()["detail"]) == (409, True)
    assert call("operator", "POST", "/versions/999999/judge-again").status_code == 404


def test_the_page_names_the_profiles_and_its_button_starts_it(sign_in: SignIn) -> None:  # noqa: F811
    version = wanting()
    page = f"/models/{version.pk}/"

    def shown(client: Client) -> str:
        return client.get(page).content.decode()

    assert "late: made after this version was built" in shown(sign_in(Role.VIEWER))
    assert "Judge again</button>" not in shown(sign_in(Role.VIEWER))
    client = sign_in(Role.OPERATOR)
    assert "Judge again</button>" in shown(client)

    assert client.post(f"{page}judge-again/").status_code == 302

    version.refresh_from_db()
    assert version.judge_again
    body = shown(client)
    assert "Judging again" in body
    assert "Judge again</button>" not in body


@pytest.mark.django_db(transaction=True)
def test_two_workers_that_look_at_once_judge_once() -> None:
    version = wanting()
    judge_again(version_id=version.pk, actor="ci")
    both_look, ended = threading.Barrier(2), []

    def work() -> None:
        try:
            both_look.wait(10)
            ended.append(judge_due(NOW, 1))
        finally:
            connection.close()

    workers = [threading.Thread(target=work) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()

    assert sorted(ended) == [0, 1]
    assert AuditEntry.objects.filter(action="version.judged_again").count() == 1
