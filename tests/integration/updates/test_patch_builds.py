from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta

import pytest

from devices.services import register_image
from fleet.blobs.models import store
from updates import services
from updates.models import ModelFamily, ModelImage, ModelVersion, Patch
from updates.patches.codec import PatchFailed, apply_patch
from updates.services import build_patches_due, ensure_patches

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
BASE = bytes(range(256)) * 40
TARGET = BASE[:5000] + b"changed" + BASE[5000:]


@pytest.fixture
def patch(db: None) -> Patch:
    family = ModelFamily.objects.create(name="imu")
    images = []
    for index, data in enumerate((BASE, TARGET)):
        blob = store(data)
        version = ModelVersion.objects.create(
            family=family, name=str(index), digest=f"{index:064x}", onnx=blob, calibration=blob, evaluation=blob
        )
        images.append(
            ModelImage.objects.create(
                version=version, runtime="tflm", precision="int8", granularity="fc-per-tensor", alignment=16, blob=blob,
                known=register_image(hashlib.sha256(data).hexdigest()), size=len(data), arena_bytes=1, operators=[],
            )
        )  # fmt: skip
    [key] = ensure_patches(wanted=[(images[0].pk, images[1].pk, "bsdiff")])
    return Patch.objects.get(pk=key)


def test_a_pair_has_one_patch_however_often_it_is_asked_for(patch: Patch) -> None:
    pair = (patch.base_id, patch.target_id, "bsdiff")
    assert ensure_patches(wanted=[pair, pair]) == [patch.pk]


def test_a_pair_has_a_patch_for_each_decoder_that_reads_it(patch: Patch) -> None:
    ensure_patches(wanted=[(patch.base_id, patch.target_id, decoder) for decoder in ("bsdiff", "s", "l")])
    build_patches_due(NOW, 5)
    assert dict(Patch.objects.values_list("decoder", "codec")) == {"bsdiff": 1, "s": 2, "l": 3}
    for one in Patch.objects.select_related("blob"):
        assert one.codec is not None
        assert one.blob is not None
        assert apply_patch(one.codec, BASE, bytes(one.blob.data), len(TARGET)) == TARGET


def test_a_waiting_patch_is_built_once_and_gives_the_target(patch: Patch) -> None:
    assert (build_patches_due(NOW, 5), build_patches_due(NOW, 5)) == (1, 0)
    patch.refresh_from_db()
    assert patch.state == "ready"
    assert patch.codec is not None
    assert patch.blob is not None
    assert patch.blob.size < len(TARGET) // 4
    assert apply_patch(patch.codec, BASE, bytes(patch.blob.data), len(TARGET)) == TARGET


def test_a_lost_workers_patch_is_taken_up_after_its_lease(patch: Patch) -> None:
    Patch.objects.update(attempts=1, lease_until=NOW + timedelta(minutes=2))
    assert build_patches_due(NOW, 1) == 0
    assert build_patches_due(NOW + timedelta(minutes=3), 1) == 1
    assert Patch.objects.get().state == "ready"


def test_a_patch_that_fails_three_times_has_failed_with_its_reason(
    patch: Patch, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(base: bytes, target: bytes, **decodable: object) -> None:
        raise PatchFailed("codec 1: decodes to other bytes")

    monkeypatch.setattr(services, "build_patch", broken)
    assert build_patches_due(NOW, 10) == 4
    patch.refresh_from_db()
    assert (patch.state, patch.attempts, patch.failure) == ("failed", 3, "codec 1: decodes to other bytes")


def test_a_patch_whose_worker_died_three_times_has_failed(patch: Patch) -> None:
    Patch.objects.update(attempts=3, lease_until=NOW)
    build_patches_due(NOW + timedelta(seconds=1), 1)
    patch.refresh_from_db()
    assert (patch.state, patch.failure) == ("failed", "The build ended without a patch 3 times.")
