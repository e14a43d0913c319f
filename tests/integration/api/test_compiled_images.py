"""Images that ST Edge AI or TVM made: taken in with their report, judged by it, and sent only where nothing compiled differs."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile

from devices.models import FirmwareBuild
from fleet.accounts.models import Role
from fleet.blobs.models import load
from tests import factories
from tests.integration.api.conftest import Caller
from tests.unit.updates.pipeline.test_runtime_reports import st_document
from updates.campaigns.eligibility import NodeKind, choose, images_of
from updates.models import ModelImage, ModelVersion

pytestmark = pytest.mark.django_db
WEIGHTS = bytes(range(224))
ON_TARGET = (
    "Output              acc       rmse      mae      l2r      mean     std      nse      cos      tensor\n"
    "-----\n"
    "TARGET c-model #1   {target}%    0.08      0.011    0.16     0.0   0.08  0.96  0.98  'y', {n} x f32(1x4), m_id=[16]\n"
    "original model #1   98.50%    0.07      0.010    0.15     0.0   0.08  0.96  0.98  'y', {n} x f32(1x4), m_id=[16]\n"
)


def document(version: ModelVersion, **changes: Any) -> dict[str, Any]:
    """A report on the version's own ONNX, as ST signs it."""
    found = st_document(**changes)
    signature = hashlib.md5(load(version.onnx_id), usedforsecurity=False).hexdigest()
    found["environment"]["tools"][0]["input_model"]["model_files"][0]["signature"] = f"0x{signature}"
    return found


def send(call: Caller, version: ModelVersion, report: object, **files: bytes) -> Any:
    parts = {"report": json.dumps(report).encode(), "image": WEIGHTS} | files
    sent = {name: SimpleUploadedFile(name, data) for name, data in parts.items()}
    return call(Role.OPERATOR, "POST", f"/versions/{version.pk}/compiled-images", **sent)


def validation(*, target: float = 98.3, n: int = 500) -> bytes:
    return ON_TARGET.format(target=target, n=n).encode()


def firmware_with(report: dict[str, Any] | None, call: Caller) -> FirmwareBuild:
    firmware = factories.make_firmware(runtime="stm32cubeai", operators=[])
    if report is not None:
        file = SimpleUploadedFile("network_c_info.json", json.dumps(report).encode())
        answer = call(Role.OPERATOR, "POST", f"/firmware-builds/{firmware.name}/network-report", report=file)
        assert answer.status_code == 200
        firmware.refresh_from_db()
    return firmware


def st_profile(**fields: Any) -> Any:
    return factories.make_profile(**{"runtime": "stm32cubeai", "chip": "stm32l476rg", **fields})


def test_slot_and_memory_come_from_the_report_and_are_held_to_each_profile(call: Caller) -> None:
    roomy, tight = st_profile(name="a"), st_profile(name="b", sram_bytes=4096, reserved_sram_bytes=3072)
    factories.make_profile(name="c")
    version = factories.make_version()

    answer = send(call, version, document(version), validation=validation())

    body = answer.json()
    assert answer.status_code == 201, body
    assert (body["image"]["size"], body["image"]["arena_bytes"], body["image"]["runtime"]) == (224, 1330, "stm32cubeai")
    fits = {one["profile"]: one for one in body["fits"]}
    assert {name: one["fits"] for name, one in fits.items()} == {roomy.name: True, tight.name: False, "c": False}
    # 70 % of 1,024 B are 716 B.
    assert "1330 bytes, 716 are allowed" in fits[tight.name]["reasons"][0]
    assert fits[roomy.name]["numbers"]["evidence"] == "compiler-report"


@pytest.mark.parametrize(
    ("files", "verdict", "reason"),
    [
        ({"validation": validation()}, "passed", ""),
        ({"validation": validation(target=95.0)}, "failed", "accuracy falls by 3.5 points, 2.0 are allowed"),
        ({"validation": validation(n=99)}, "inconclusive", "99 samples, 100 are needed"),
        (
            {"validation": validation().replace(b"TARGET", b"HOST  ")},
            "inconclusive",
            "nothing was measured on the target",
        ),
        ({}, "inconclusive", "no validation report came with the image"),
    ],
)
def test_only_what_was_measured_on_the_chip_lets_an_image_pass(
    call: Caller, files: dict[str, bytes], verdict: str, reason: str
) -> None:
    version = factories.make_version()

    body = send(call, version, document(version), **files).json()

    assert body["validation"]["verdict"] == verdict
    assert reason in " ".join(body["validation"]["reasons"])
    shippable = [image.runtime for image in images_of(version)]
    assert ("stm32cubeai" in shippable) == (verdict == "passed")


def test_the_report_must_be_of_the_versions_own_file_or_of_the_model_that_comes_with_it(call: Caller) -> None:
    version = factories.make_version()
    exported = b"a quantized export"
    report = document(version)
    files = report["environment"]["tools"][0]["input_model"]["model_files"]
    files[0]["signature"] = "0x" + hashlib.md5(exported, usedforsecurity=False).hexdigest()

    refused = send(call, version, report)
    wrong = send(call, version, report, model=b"another export")
    taken = send(call, version, report, model=exported)

    assert (refused.status_code, refused.json()["field"]) == (422, "report.model_signature")
    assert (wrong.status_code, wrong.json()["field"]) == (422, "report.model_signature")
    assert taken.status_code == 201


@pytest.mark.parametrize(
    ("report", "files", "field"),
    [
        ({"anything": 1}, {}, "report.memory.functions.main"),
        (None, {"image": b"short"}, "image"),
        (None, {"validation": b"no table"}, "validation.report"),
    ],
)
def test_what_cannot_be_believed_stores_nothing(
    call: Caller, report: object, files: dict[str, bytes], field: str
) -> None:
    version = factories.make_version()

    answer = send(call, version, report or document(version), **files)

    assert (answer.status_code, answer.json()["field"]) == (422, field)
    assert not ModelImage.objects.filter(runtime="stm32cubeai").exists()


def test_the_same_image_is_not_taken_twice(call: Caller) -> None:
    version = factories.make_version()
    send(call, version, document(version))

    again = send(call, version, document(version))

    assert again.status_code == 409
    assert f"an image of {version} already" in again.json()["detail"]


@pytest.mark.parametrize(
    ("compiled_in", "cause", "reason"),
    [
        ({}, "", ""),
        (None, "swap-refused", "is not known, so its weights cannot be exchanged"),
        ({"graphs": [{"nodes": [{"type": "Conv2D", "inputs": [3], "outputs": [5]}]}]}, "swap-refused", "another one"),
    ],
)
def test_weights_go_only_into_firmware_with_the_same_network(
    call: Caller, compiled_in: dict[str, Any] | None, cause: str, reason: str
) -> None:
    version = factories.make_version()
    send(call, version, document(version), validation=validation())
    firmware = firmware_with(None if compiled_in is None else document(version, **compiled_in), call)
    kind = NodeKind(1, firmware.pk, None, None, None)

    choice = choose(kind=kind, images=images_of(version), profile=st_profile(), firmware=firmware)

    assert choice.cause == cause
    assert reason in choice.reason
    assert (choice.image is not None) == (cause == "")


@pytest.mark.parametrize(("chip", "words"), [("stm32u545re", "was generated for stm32l4"), ("", "names no chip")])
def test_a_report_for_another_series_or_an_unknown_chip_does_not_fit(call: Caller, chip: str, words: str) -> None:
    st_profile(chip=chip)
    version = factories.make_version()

    body = send(call, version, document(version), validation=validation()).json()

    assert not body["fits"][0]["fits"]
    assert words in body["fits"][0]["reasons"][0]


def test_firmware_takes_only_a_report_of_its_own_run_time(call: Caller) -> None:
    firmware, version = factories.make_firmware(), factories.make_version()
    file = SimpleUploadedFile("r.json", json.dumps(document(version)).encode())

    answer = call(Role.OPERATOR, "POST", f"/firmware-builds/{firmware.name}/network-report", report=file)

    assert answer.status_code == 422
    assert "It is of stm32cubeai" in answer.json()["detail"]
