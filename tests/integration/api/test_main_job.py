"""What CI does over REST, with real files and the real build."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.utils import timezone
from onnx import numpy_helper

from devices.models import Node
from tests.integration.api.conftest import Caller
from updates.builds import build_due
from updates.models import ModelVersion

pytestmark = pytest.mark.usefixtures("stages_run_once")

DEMO = Path(__file__).resolve().parents[3] / "demo" / "models"
ONNX = (DEMO / "imu-1.0.onnx").read_bytes()
CALIBRATION = (DEMO / "imu-calibration.npz").read_bytes()
EVALUATION = (DEMO / "imu-evaluation.npz").read_bytes()
PROFILE = {"name": "stm32l4", "slot_bytes": 262144, "sram_bytes": 131072, "reserved_sram_bytes": 32768}


def upload(call: Caller, name: str, **changes: bytes) -> Any:
    files = {"onnx": ONNX, "calibration": CALIBRATION, "evaluation": EVALUATION} | changes
    return call(
        "operator",
        "POST",
        "/versions",
        family="imu",
        name=name,
        **{field: SimpleUploadedFile(field, data) for field, data in files.items()},
    )


def test_a_version_goes_from_upload_to_an_approved_campaign(call: Caller) -> None:
    assert call("operator", "POST", "/profiles", PROFILE).status_code == 201
    uploaded = upload(call, "1.0")
    assert uploaded.status_code == 201
    where = f"/versions/{uploaded.json()['id']}"
    assert uploaded.json()["state"] == "uploaded"
    again = upload(call, "1.0")
    assert (again.status_code, again.json()["id"]) == (200, uploaded.json()["id"])
    assert upload(call, "1.0", evaluation=CALIBRATION).status_code == 409

    build_due(timezone.now(), 1)
    assert call("viewer", "GET", where).json()["state"] == "ready"
    fits = call("viewer", "GET", f"{where}/fit").json()
    assert {one["fits"] for one in fits} == {True}
    [chosen] = [one for one in call("viewer", "GET", where).json()["images"] if one["chosen_for"] == ["stm32l4"]]
    validations = {one["image"]: one["verdict"] for one in call("viewer", "GET", f"{where}/validation").json()}
    assert validations[chosen["digest"]] == "passed"

    image = ModelVersion.objects.get().images.get(known=chosen["digest"])
    build = {"name": "fw-1", "io_hash": image.io_hash, "operators": image.operators}
    assert call("operator", "POST", "/firmware-builds", build).status_code == 201
    rows = [
        {"endpoint": f"n-{i}", "link": "nbiot", "profile": "stm32l4", "firmware_build": "fw-1", "labels": {"line": "7"}}
        for i in range(5)
    ]
    assert call("operator", "POST", "/nodes/bulk", {"nodes": rows}).json()["registered"] == 5

    wanted = {
        "name": "imu 1.0",
        "version_id": uploaded.json()["id"],
        "node_filter": "label.line=7",
        "waves": [{"percent": 20}, {"percent": 100}],
        "idempotency_key": "ci-1",
    }
    made = call("operator", "POST", "/campaigns", wanted)
    assert made.status_code == 201, made.content
    campaign = made.json()
    assert call("operator", "POST", "/campaigns", wanted).json()["id"] == campaign["id"]
    path = f"/campaigns/{campaign['id']}"
    assert call("viewer", "GET", path).json()["counts"] == {"planned": 5}
    page = call("viewer", "GET", f"{path}/nodes?limit=3").json()
    rest = call("viewer", "GET", f"{path}/nodes?limit=3&after={page['next']}").json()
    assert len({node["endpoint"] for node in page["nodes"] + rest["nodes"]}) == 5
    assert rest["next"] is None

    assert call("approver", "POST", f"{path}/start").status_code == 409
    assert call("approver", "POST", f"{path}/approve", {"plan_hash": "0" * 64}).status_code == 409
    assert call("approver", "POST", f"{path}/approve", {"plan_hash": campaign["plan_hash"]}).status_code == 200
    assert call("approver", "POST", f"{path}/start").json()["state"] in ("scheduled", "running")
    assert call("approver", "POST", f"{path}/start").status_code == 409
    assert call("operator", "POST", f"{path}/pause", {"reason": "lunch"}).json()["state"] == "paused"
    assert call("operator", "POST", f"{path}/abort").json()["state"] == "aborted"


def not_finite(value: float) -> bytes:
    model = onnx.load_from_string(ONNX)
    weights = next(one for one in model.graph.initializer if one.data_type == onnx.TensorProto.FLOAT)
    values = numpy_helper.to_array(weights).copy()
    values.flat[0] = value
    weights.CopyFrom(numpy_helper.from_array(values, weights.name))
    return model.SerializeToString()


def npz(**arrays: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.savez(out, **arrays)
    return out.getvalue()


def zip_bomb() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("inputs.npy", bytes(300 * 1024 * 1024))
    return out.getvalue()


BAD = {
    "not ONNX": ({"onnx": b"GIF89a" + bytes(100)}, "onnx"),
    "truncated": ({"onnx": ONNX[: len(ONNX) // 2]}, "onnx"),
    "NaN weights": ({"onnx": not_finite(float("nan"))}, None),
    "infinite weights": ({"onnx": not_finite(float("inf"))}, None),
    "wrong array name": ({"calibration": npz(samples=np.zeros((4, 6, 1, 100), np.float16))}, "calibration"),
    "wrong shape": ({"calibration": npz(inputs=np.zeros((4, 5), np.float32))}, "calibration"),
    "zip bomb": ({"evaluation": zip_bomb()}, "evaluation"),
    "pickled": ({"evaluation": npz(inputs=np.array([{}], object))}, "evaluation"),
    "truncated arrays": ({"evaluation": EVALUATION[:1000]}, "evaluation"),
    "unsupported operator": ({"onnx": (DEMO / "imu-unsupported.onnx").read_bytes()}, None),
}


@pytest.mark.parametrize("what", list(BAD))
def test_a_bad_upload_ends_refused_with_a_reason_that_names_the_field(call: Caller, what: str) -> None:
    files, field = BAD[what]
    version_id = upload(call, "1.0", **files).json()["id"]
    build_due(timezone.now(), 1)
    version = call("viewer", "GET", f"/versions/{version_id}").json()
    assert version["state"] == "refused"
    assert version["refusal"]["message"]
    assert version["refusal"]["fix"]
    assert field is None or version["refusal"]["field"].startswith(field)
    assert call("viewer", "GET", f"/versions/{version_id}/validation").json() == []


def test_an_upload_without_a_file_or_with_an_empty_one_stores_nothing(call: Caller) -> None:
    assert upload(call, "1.0", onnx=b"").json()["field"] == "onnx"
    lonely = call("operator", "POST", "/versions", family="imu", name="1", onnx=SimpleUploadedFile("o", b"x"))
    assert {error["field"] for error in lonely.json()["errors"]} == {"calibration", "evaluation"}
    assert not ModelVersion.objects.exists()


def test_bulk_registration_stores_all_or_nothing_and_names_each_wrong_row(call: Caller) -> None:
    call("operator", "POST", "/profiles", PROFILE)
    good = {"endpoint": "n-1", "link": "nbiot", "profile": "stm32l4"}
    rows = [good, good | {"endpoint": "n-2", "profile": "none"}, good]
    response = call("operator", "POST", "/nodes/bulk", {"nodes": rows})
    assert response.status_code == 422
    assert {error["field"] for error in response.json()["errors"]} == {"1.profile", "2.endpoint"}
    assert not Node.objects.exists()
    assert call("operator", "POST", "/nodes", good | {"colour": "red"}).json()["field"].endswith("colour")
    assert call("operator", "POST", "/nodes", good).status_code == 201


def test_a_wrong_profile_is_refused_by_field(call: Caller) -> None:
    response = call("operator", "POST", "/profiles", PROFILE | {"reserved_sram_bytes": 2**20})
    assert response.status_code == 422
    assert call("operator", "POST", "/profiles", PROFILE | {"runtime": "dos"}).json()["field"] == "runtime"


def test_a_wrong_filter_points_at_its_position(call: Caller) -> None:
    response = call("viewer", "GET", "/nodes?filter=site:a%20colour:red")
    assert response.status_code == 422
    assert response.json()["position"] == 7
