from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client

from fleet.accounts.models import Role
from tests import factories
from tests.integration.frontend.conftest import Fleet
from updates.models import Campaign, ModelVersion

SignIn = Callable[[Role], Client]


def files(**changes: bytes) -> dict[str, Any]:
    contents = {"onnx": b"network", "calibration": b"calibration", "evaluation": b"evaluation"} | changes
    return {name: SimpleUploadedFile(f"{name}.bin", data) for name, data in contents.items()}


def test_an_upload_leads_to_the_page_of_its_version(sign_in: SignIn, db: None) -> None:
    client = sign_in(Role.OPERATOR)

    response = client.post("/models/upload/", {"family_name": "fitness", "version_name": "1.0.0", **files()})

    version = ModelVersion.objects.get()
    assert response["Location"] == f"/models/{version.pk}/"
    assert str(version) == "fitness 1.0.0"


def test_an_upload_with_a_bad_name_stores_nothing_and_says_what_is_allowed(sign_in: SignIn, db: None) -> None:
    client = sign_in(Role.OPERATOR)

    response = client.post("/models/upload/", {"family_name": "fit ness", "version_name": "../1", **files()})

    assert response.status_code == 400
    assert "Start with a letter or digit" in response.content.decode()
    assert not ModelVersion.objects.exists()


def test_other_files_under_a_known_name_are_refused_with_a_reason(sign_in: SignIn, db: None) -> None:
    client = sign_in(Role.OPERATOR)
    names = {"family_name": "fitness", "version_name": "1.0.0"}
    client.post("/models/upload/", {**names, **files()})

    response = client.post("/models/upload/", {**names, **files(onnx=b"another network")})

    assert response.status_code == 400
    assert 'class="error"' in response.content.decode() or "notice is-failed" in response.content.decode()
    assert ModelVersion.objects.count() == 1


def test_a_file_above_the_limit_is_refused(sign_in: SignIn, db: None, settings: Any) -> None:
    settings.UPLOAD_MAX_BYTES = 1000
    client = sign_in(Role.OPERATOR)

    response = client.post(
        "/models/upload/", {"family_name": "fitness", "version_name": "1.0.0", **files(onnx=b"x" * 1001)}
    )

    assert response.status_code == 400
    assert "at most 1000 B are taken" in response.content.decode()


def test_a_declared_length_of_3_gb_is_refused_before_the_body_is_read(sign_in: SignIn, db: None) -> None:
    client = sign_in(Role.OPERATOR)

    response = client.post(
        "/models/upload/", b"", content_type="multipart/form-data; boundary=x", CONTENT_LENGTH=str(3 * 1024**3)
    )

    assert response.status_code == 413
    assert "Nothing was stored" in response.content.decode()


def test_a_version_that_is_not_ready_cannot_be_chosen(fleet: Fleet, sign_in: SignIn) -> None:
    client = sign_in(Role.OPERATOR)

    response = client.post("/campaigns/new/", campaign_fields(fleet.building))

    assert response.status_code == 400
    assert "Select a valid choice" in response.content.decode()


def test_a_planned_campaign_shows_whom_it_reaches_and_whom_not_with_numbers(sign_in: SignIn, db: None) -> None:
    client = sign_in(Role.OPERATOR)
    firmware = factories.make_firmware()
    roomy = factories.make_profile()
    small = factories.make_profile(name="tiny", sram_bytes=64 * 1024, reserved_sram_bytes=32 * 1024)
    version = factories.make_version(profiles=[roomy, small])
    for profile, count in ((roomy, 3), (small, 2)):
        for _ in range(count):
            factories.make_node(profile=profile, firmware_build=firmware)

    response = client.post("/campaigns/new/", campaign_fields(version), follow=True)

    body = response.content.decode()
    assert "Ready to approve: 3 of 5 nodes are reached." in body
    assert "57472 bytes, 22937 are allowed" in body
    assert Campaign.objects.get().state == "draft"


def campaign_fields(version: ModelVersion) -> dict[str, Any]:
    return {
        "name": "spring",
        "version": version.pk,
        "node_filter": "",
        "percent": ["10", "50", "100"],
        "soak_hours": ["72", "48", "48"],
        "maximum_failure_percent": "2",
        "maximum_silent_percent": "20",
        "minimum_sample": "20",
        "starts_at": "",
        "time_zone": "UTC",
        "do": "save",
    }
