"""What the hardware profiles ask of an image: cache lines and deadlines."""

from __future__ import annotations

import pytest

from devices.models import HardwareProfile
from tests.integration.updates.test_version_builds import NOW, upload
from updates.builds import build_due
from updates.fits import refit
from updates.models import Fit
from updates.pipeline.post_pass import misaligned_buffers

pytestmark = pytest.mark.usefixtures("stages_run_once")

SIZES = {"slot_bytes": 262_144, "sram_bytes": 131_072, "reserved_sram_bytes": 32_768}


@pytest.mark.django_db
def test_an_image_is_aligned_to_the_longest_cache_line_and_held_to_the_deadline() -> None:
    HardwareProfile.objects.create(name="plain", **SIZES)
    HardwareProfile.objects.create(name="cached", core="cortex-m7", cache_line_bytes=32, **SIZES)
    hurried = HardwareProfile.objects.create(name="hurried", clock_hz=1_000_000, latency_deadline_ms=1, **SIZES)
    version = upload("imu-1.0", "1.0")

    build_due(NOW, 1)

    image = version.images.get(precision="int8", granularity="fc-per-tensor")
    assert image.alignment == 32
    assert misaligned_buffers(bytes(image.blob.data), 32) == []
    fits = {fit.profile.name: fit for fit in image.fits.select_related("profile")}
    assert {name: fit.fits for name, fit in fits.items()} == {"plain": True, "cached": True, "hurried": False}
    assert "deadline is 1 ms" in fits["hurried"].reasons[0]
    low, likely, high = fits["cached"].numbers["latency"]["milliseconds"]
    assert 0 < low < likely < high
    hurried.latency_deadline_ms = None
    hurried.save()
    refit(hurried)
    assert Fit.objects.get(profile=hurried, image=image).fits
