from __future__ import annotations

from pathlib import Path

import pytest

from updates.pipeline.build import build
from updates.pipeline.types import BuildRequest, BuildResult, Profile, Refused

pytestmark = pytest.mark.usefixtures("stages_run_once")

MODELS = Path(__file__).resolve().parents[4] / "demo" / "models"
PROFILES = (
    Profile("roomy"),
    Profile("small-slot", slot_bytes=16 * 1024),
    Profile("small-sram", sram_bytes=16 * 1024, reserved_sram_bytes=10 * 1024),
)


def built(version: str) -> BuildResult:
    request = BuildRequest(
        onnx=(MODELS / f"imu-{version}.onnx").read_bytes(),
        calibration=(MODELS / "imu-calibration.npz").read_bytes(),
        evaluation=(MODELS / "imu-evaluation.npz").read_bytes(),
        profiles=PROFILES,
        preprocessing="imu-standardized-v1",
    )
    return build(request, lambda stage, fraction: None)


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_a_demo_version_passes_under_the_default_limits_and_fits_where_it_should(version):
    result = built(version)

    (image,) = result.images
    assert result.reports[image.digest].verdict == "passed"
    assert [one.fits for one in result.fits[image.digest]] == [True, False, False]
    assert 15_000 < len(image.data) < 40_000


def test_both_demo_versions_share_one_interface():
    first, second = (built(version).images[0] for version in ("1.0", "1.1"))

    assert first.io_hash == second.io_hash
    assert first.operators == second.operators
    assert first.self_test_digest != second.self_test_digest


def test_the_unsupported_demo_model_is_refused_by_its_operator():
    with pytest.raises(Refused) as caught:
        built("unsupported")

    assert (caught.value.stage, caught.value.code) == ("check", "data_dependent_operator")
    assert caught.value.field == "NonZero (keep_moving_steps)"


def test_the_demo_files_stay_under_500_kb_together():
    assert sum(path.stat().st_size for path in MODELS.glob("imu-*")) < 500_000
