"""Uploads of real networks, built by the real pipeline."""

from __future__ import annotations

import hashlib
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from django.db import connection

from devices.models import HardwareProfile, KnownImage, Node
from fleet.audit.models import AuditEntry
from updates import builds
from updates.builds import build_due
from updates.models import Fit, ModelImage, ModelVersion
from updates.services import UploadConflict, UploadRefused, ensure_family, upload_version

pytestmark = pytest.mark.usefixtures("stages_run_once")

DEMO = Path(__file__).resolve().parents[3] / "demo" / "models"
NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


def upload(network: str, name: str, **changes: bytes) -> ModelVersion:
    files = {
        "onnx": (DEMO / f"{network}.onnx").read_bytes(),
        "calibration": (DEMO / "imu-calibration.npz").read_bytes(),
        "evaluation": (DEMO / "imu-evaluation.npz").read_bytes(),
    } | changes
    return upload_version(family_name="imu", version_name=name, **files, actor="test")[0]


@pytest.fixture
def profiles(db: None) -> list[HardwareProfile]:
    return [
        HardwareProfile.objects.create(
            name="roomy", slot_bytes=262_144, sram_bytes=131_072, reserved_sram_bytes=32_768
        ),
        HardwareProfile.objects.create(name="tight", slot_bytes=8_192, sram_bytes=16_384, reserved_sram_bytes=8_192),
    ]


def test_a_real_network_becomes_ready_with_fits_and_a_passed_validation(profiles: list[HardwareProfile]) -> None:
    version = upload("imu-1.0", "1.0")
    assert build_due(NOW, 1) == 1
    version.refresh_from_db()
    assert (version.state, version.refusal, version.progress_percent, version.stage) == ("ready", None, 100, "done")
    assert version.lease_until is None
    assert version.images.count() == 4
    assert list(Fit.objects.filter(rank=0, fits=True).values_list("profile__name", flat=True)) == ["roomy"]
    image = version.images.get(fits__profile__name="roomy", fits__rank=0)
    # Nothing is known of firmware yet, so an int8 input stays one.
    assert image.precision == "int8"
    assert image.facts["input_type"] == "int8"
    others = version.images.exclude(pk=image.pk)
    assert {other.validation.verdict for other in others} <= {"inconclusive", "failed"}
    assert hashlib.sha256(bytes(image.blob.data)).hexdigest() == image.digest
    assert KnownImage.objects.get(digest=image.digest).prefix == image.digest[:8]
    assert image.validation.verdict == "passed"
    assert {fit.profile.name: fit.fits for fit in image.fits.all()} == {"roomy": True, "tight": False}
    assert all(
        str(image.size) in reason or str(image.arena_bytes) in reason for reason in image.fits.get(fits=False).reasons
    )
    assert image.facts["input_shape"]
    assert build_due(NOW, 1) == 0


def test_an_unsupported_operator_is_refused_by_its_name(db: None) -> None:
    version = upload("imu-unsupported", "1.2")
    build_due(NOW, 1)
    version.refresh_from_db()
    assert version.state == "refused"
    assert version.refusal.keys() == {"stage", "code", "field", "message", "fix"}
    assert "NonZero" in str(version.refusal)
    assert not version.images.exists()


def test_a_version_that_fits_nowhere_is_still_ready(db: None) -> None:
    HardwareProfile.objects.create(name="tight", slot_bytes=8_192, sram_bytes=16_384, reserved_sram_bytes=8_192)
    version = upload("imu-1.0", "1.0")
    build_due(NOW, 1)
    version.refresh_from_db()
    assert version.state == "ready"
    assert not Fit.objects.filter(fits=True).exists()


def test_a_network_that_loses_accuracy_is_refused_with_its_report_kept_and_more_lenient_data_may_follow(
    db: None,
) -> None:
    ensure_family(name="imu", limits={"minimum_samples": 100_000}, actor="test")
    version = upload("imu-1.0", "1.0")
    build_due(NOW, 1)
    version.refresh_from_db()
    assert (version.state, version.refusal["stage"], version.refusal["code"]) == ("refused", "validate", "inconclusive")
    assert version.images.get().validation.verdict == "inconclusive"

    # The same image comes again with other evaluation data under the limits that the owner has since corrected.
    version.family.limits = {}
    version.family.save()
    evaluation = (DEMO / "imu-evaluation.npz").read_bytes()
    again = upload("imu-1.0", "1.0.1", evaluation=rezipped(evaluation))
    build_due(NOW, 1)
    again.refresh_from_db()
    assert again.state == "ready", again.refusal


def rezipped(npz: bytes) -> bytes:
    """The same arrays in other bytes."""
    import io

    import numpy as np

    out = io.BytesIO()
    np.savez(out, **np.load(io.BytesIO(npz)))
    return out.getvalue()


def test_the_image_of_a_ready_version_is_not_built_for_another(db: None) -> None:
    upload("imu-1.0", "1.0")
    build_due(NOW, 1)
    twin = upload("imu-1.0", "1.0.1", evaluation=rezipped((DEMO / "imu-evaluation.npz").read_bytes()))
    build_due(NOW, 1)
    twin.refresh_from_db()
    assert (twin.state, twin.refusal["code"]) == ("refused", "same_image")
    assert "imu 1.0" in twin.refusal["message"]


@pytest.mark.django_db(transaction=True)
def test_two_workers_that_look_at_once_build_once(monkeypatch: pytest.MonkeyPatch) -> None:
    upload("imu-1.0", "1.0")
    began: list[int] = []
    real, both_looked = builds.pipeline.build, threading.Barrier(2)

    def counted(*arguments: object) -> object:
        began.append(threading.get_ident())
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(builds.pipeline, "build", counted)

    def work() -> None:
        try:
            both_looked.wait(10)
            build_due(NOW, 1)
        finally:
            connection.close()

    workers = [threading.Thread(target=work) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(began) == 1
    assert ModelVersion.objects.get().state == "ready"
    assert ModelImage.objects.count() == 1


def test_a_killed_workers_version_is_taken_up_after_its_lease(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    version = upload("imu-1.0", "1.0")
    ModelVersion.objects.update(state="building", attempts=1, lease_until=NOW + timedelta(minutes=2))
    assert build_due(NOW, 1) == 0
    assert build_due(NOW + timedelta(minutes=3), 1) == 1
    version.refresh_from_db()
    assert (version.state, version.attempts) == ("ready", 2)


def test_a_build_that_ends_three_times_without_a_verdict_is_refused(db: None) -> None:
    version = upload("imu-1.0", "1.0")
    ModelVersion.objects.update(state="building", attempts=3, lease_until=NOW)
    build_due(NOW + timedelta(seconds=1), 1)
    version.refresh_from_db()
    assert version.state == "refused"
    assert version.refusal["message"] == "the build ended without a verdict 3 times"


def test_an_unforeseen_error_gives_the_lease_back_and_is_not_swallowed(
    db: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = upload("imu-1.0", "1.0")

    def broken(*arguments: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(builds.pipeline, "build", broken)
    with pytest.raises(OSError, match="disk full"):
        build_due(NOW, 1)
    version.refresh_from_db()
    assert (version.state, version.attempts, version.lease_until) == ("building", 1, NOW)


def test_a_worker_that_lost_its_lease_stores_nothing(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    version = upload("imu-1.0", "1.0")
    real = builds.pipeline.build

    def overtaken(*arguments: object) -> object:
        ModelVersion.objects.update(attempts=2)
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(builds.pipeline, "build", overtaken)
    build_due(NOW, 1)
    version.refresh_from_db()
    assert version.state == "building"
    assert not version.images.exists()


@pytest.mark.django_db(transaction=True)
def test_a_profile_made_later_is_fitted_when_it_is_saved() -> None:
    upload("imu-1.0", "1.0")
    build_due(NOW, 1)
    profile = HardwareProfile.objects.create(
        name="late", slot_bytes=262_144, sram_bytes=131_072, reserved_sram_bytes=32_768
    )
    assert Fit.objects.get(profile=profile).fits
    profile.slot_bytes = 1024
    profile.save()
    assert not Fit.objects.get(profile=profile).fits


def test_the_same_files_give_the_same_version_and_one_audit_entry(db: None) -> None:
    assert upload("imu-1.0", "1.0") == upload("imu-1.0", "1.0")
    assert AuditEntry.objects.filter(action="version.uploaded").count() == 1


def test_a_name_with_other_files_is_refused_and_so_are_known_files_under_another_name(db: None) -> None:
    upload("imu-1.0", "1.0")
    with pytest.raises(UploadConflict, match=r"^name: "):
        upload("imu-1.1", "1.0")
    with pytest.raises(UploadConflict, match=r"^onnx: "):
        upload("imu-1.0", "1.1")
    assert ModelVersion.objects.count() == 1


@pytest.mark.parametrize(
    ("field", "arguments"),
    [
        ("onnx", {"onnx": b""}),
        ("calibration", {"calibration": bytes(64 * 1024 * 1024 + 1)}),
        ("family", {"family_name": "not a slug"}),
        ("family", {"family_name": ""}),
        ("name", {"version_name": "../1"}),
        ("name", {"version_name": "1" * 33}),
    ],
)
def test_a_bad_upload_is_refused_by_field_and_nothing_is_stored(
    db: None, field: str, arguments: dict[str, object]
) -> None:
    good = {"family_name": "imu", "version_name": "1", "onnx": b"o", "calibration": b"c", "evaluation": b"e"}
    with pytest.raises(UploadRefused) as refused:
        upload_version(**(good | arguments), actor="test")  # type: ignore[arg-type]
    assert refused.value.field == field
    assert not ModelVersion.objects.exists()


@pytest.mark.long
def test_where_the_owner_gives_accuracy_for_bytes_the_image_near_the_deployed_one_ships(db: None) -> None:
    ensure_family(name="imu", limits={"curve_accuracy_drop": 0.02}, actor="test")
    profile = HardwareProfile.objects.create(
        name="roomy", slot_bytes=262_144, sram_bytes=131_072, reserved_sram_bytes=32_768
    )
    first = upload("imu-1.0", "1.0")
    build_due(NOW, 1)
    held = first.images.get(fits__profile=profile, fits__rank=0)
    Node.objects.create(endpoint="n1", link="nbiot", profile=profile, active_digest=held.digest)

    second = upload("imu-1.1", "1.1")
    build_due(NOW, 1)

    second.refresh_from_db()
    assert second.state == "ready", second.refusal
    curve = second.evidence["curve"]
    [point] = [one for one in curve if one["chosen"]]
    [plain] = [one for one in curve if one["strength"] == 0]
    assert point["patch_bytes"] < plain["patch_bytes"]
    ships = second.images.get(fits__profile=profile, fits__rank=0)
    assert ships.validation.verdict == "passed"
    assert ships.digest == point["digest"]
