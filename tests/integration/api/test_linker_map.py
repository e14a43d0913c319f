"""The linker map of a firmware sets what its profile reserves, and images are judged by it anew."""

from __future__ import annotations

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile

from fleet.accounts.models import Role
from fleet.audit.models import AuditEntry
from tests import factories
from tests.integration.api.conftest import Caller
from tests.unit.devices.test_linker_map import MAP

pytestmark = pytest.mark.django_db(transaction=True)


def send(call: Caller, name: str, text: str = MAP, **fields: object) -> tuple[int, dict]:
    files = {"map": SimpleUploadedFile("firmware.map", text.encode())}
    answer = call(Role.OPERATOR, "POST", f"/profiles/{name}/linker-map", **files | fields)
    return answer.status_code, answer.json()


def test_sram_and_reserved_come_from_the_map_and_stored_fits_follow(call: Caller) -> None:
    profile = factories.make_profile(name="pump", sram_bytes=64 * 1024, reserved_sram_bytes=60 * 1024)
    image = factories.make_version(profiles=[profile], arena_bytes=57_472).images.get()
    assert not image.fits.get().fits

    status, body = send(call, "pump")

    assert (status, body["stored"], body["arena_bytes"], body["reserved_bytes"]) == (200, True, 20_000, 7_168)
    profile.refresh_from_db()
    assert (profile.sram_bytes, profile.reserved_sram_bytes) == (128 * 1024, 7_168)
    assert image.fits.get().fits
    entry = AuditEntry.objects.get(action="profile.linker_map")
    assert (entry.before["reserved_sram_bytes"], entry.after["reserved_sram_bytes"]) == (60 * 1024, 7_168)


def test_a_dry_run_says_the_same_and_stores_nothing(call: Caller) -> None:
    profile = factories.make_profile(name="pump")

    status, body = send(call, "pump", dry_run="true")

    assert (status, body["stored"], body["profile"]["reserved_sram_bytes"]) == (200, False, 7_168)
    profile.refresh_from_db()
    assert profile.reserved_sram_bytes == 40 * 1024
    assert not AuditEntry.objects.filter(action="profile.linker_map").exists()


def test_a_map_that_does_not_tell_changes_nothing_and_names_the_fix(call: Caller) -> None:
    profile = factories.make_profile(name="pump")

    status, body = send(call, "pump", region="DTCM")

    assert (status, body["field"]) == (422, "region")
    assert body["errors"][0]["fix"] == "use one of FLASH, RAM, CCM."
    profile.refresh_from_db()
    assert profile.reserved_sram_bytes == 40 * 1024


def test_a_profile_that_is_not_there_is_not_found(call: Caller) -> None:
    status, body = send(call, "nowhere")

    assert status == 404
    assert "make it first with POST /profiles" in body["title"] + body.get("detail", "")
