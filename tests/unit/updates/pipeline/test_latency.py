from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tests.unit.updates.pipeline.models import convolution_model, request, samples
from updates.pipeline.build import build
from updates.pipeline.convert import fp32_latency_ms
from updates.pipeline.evidence import Measured
from updates.pipeline.latency import deadline_reason, estimate, judged, miss_reason, rate
from updates.pipeline.types import Profile, Work

pytestmark = pytest.mark.usefixtures("stages_run_once")

M4 = Profile("m4", core="cortex-m4f", clock_hz=80_000_000)
CONVOLUTION = Work("CONV_2D", macs=1_000_000, values=10_000, weight_bytes=1000, passes=1000)
DENSE = Work("FULLY_CONNECTED", macs=1_000_000, values=1000, weight_bytes=1_000_000, passes=1)


def test_the_work_of_an_image_is_counted_from_its_shapes():
    image = build(request(convolution_model()), lambda stage, done: None).images[0]

    counted = {(one.operator, one.macs, one.weight_bytes, one.passes) for one in image.work if one.macs}
    assert counted == {
        ("CONV_2D", 6 * 8 * 8 * 27, 8 * 27, 48),
        ("FULLY_CONNECTED", 8 * 16, 8 * 16, 1),
        ("FULLY_CONNECTED", 16 * 4, 16 * 4, 1),
    }


def test_the_band_is_ordered_and_says_where_it_comes_from():
    for core in ("cortex-m0+", "cortex-m3", "cortex-m4f", "cortex-m7", "cortex-m33", "cortex-m55", "rv32imc"):
        for library in ("reference", "cmsis-nn", "esp-nn"):
            found = estimate((CONVOLUTION,), dataclasses.replace(M4, core=core, kernel_library=library))
            low, likely, high = found.milliseconds
            assert 0 < low < likely < high
            assert "assumed" in found.basis or "Lai" in found.basis


def test_an_unknown_core_is_said_to_be_unknown_and_has_the_wider_band():
    known, unknown = rate(M4), rate(dataclasses.replace(M4, core="rv32imc"))

    assert "unknown" in unknown.basis
    assert unknown.high / unknown.low > known.high / known.low


def test_twice_the_clock_takes_half_the_time():
    fast = dataclasses.replace(M4, clock_hz=160_000_000, slot_read_bytes_per_second=80_000_000)

    assert estimate((CONVOLUTION,), fast).milliseconds[1] == pytest.approx(
        estimate((CONVOLUTION,), M4).milliseconds[1] / 2
    )


def test_slow_slot_memory_is_the_floor_of_a_fully_connected_network():
    slow = dataclasses.replace(M4, slot_read_bytes_per_second=1_000_000)

    assert estimate((DENSE,), slow).milliseconds[0] == pytest.approx(1000)


def test_memory_without_a_cache_is_read_again_for_every_second_position():
    slow = dataclasses.replace(M4, slot_read_bytes_per_second=1_000_000)
    low, _, high = estimate((CONVOLUTION,), slow).milliseconds

    assert high > 500
    assert low < 50


def test_reference_kernels_and_wide_activations_take_longer():
    plain = estimate((CONVOLUTION,), M4).milliseconds[1]

    assert estimate((CONVOLUTION,), dataclasses.replace(M4, kernel_library="reference")).milliseconds[1] > 2 * plain
    assert estimate((CONVOLUTION,), M4, precision="int16x8").milliseconds[1] > plain


def test_only_a_deadline_below_the_whole_band_is_refused():
    found = estimate((CONVOLUTION,), M4)
    low = found.milliseconds[0]

    assert deadline_reason(found, M4) is None
    assert deadline_reason(found, dataclasses.replace(M4, latency_deadline_ms=low + 0.01)) is None
    reason = deadline_reason(found, dataclasses.replace(M4, latency_deadline_ms=low * 0.99))
    assert reason is not None
    assert f"at least {low:.1f} ms" in reason


def test_a_measured_p99_replaces_the_estimate_in_both_directions():
    found = estimate((CONVOLUTION,), M4)
    tight = dataclasses.replace(M4, latency_deadline_ms=found.milliseconds[1])

    slower = judged(found, Measured(14, p99_ms=found.milliseconds[1] + 1, p99_nodes=12), tight)
    faster = judged(found, Measured(14, p99_ms=0.1, p99_nodes=12), tight)

    assert slower is not None
    assert faster is not None
    assert deadline_reason(found, tight) is None
    assert "node-reported: the worst p99 of 12 nodes" in (deadline_reason(slower, tight) or "")
    assert deadline_reason(faster, tight) is None
    assert judged(found, Measured(14), tight) is found
    assert judged(found, None, tight) is found


def test_a_measured_p99_counts_where_the_work_of_the_network_is_not_known():
    found = judged(None, Measured(1, p99_ms=7.5, p99_nodes=1), M4)

    assert found is not None
    assert (found.milliseconds, found.macs, found.evidence) == ((7.5, 7.5, 7.5), 0, "node-reported")
    assert found.cycles[0] == 7.5 / 1000 * M4.clock_hz


def test_one_missed_deadline_refuses_where_there_is_one_and_none_passes():
    hurried = dataclasses.replace(M4, latency_deadline_ms=20)
    missed = Measured(14, inferences=120_000, deadline_misses=1, missing_nodes=1)

    assert miss_reason(missed, hurried) == (
        "1 of 120000 inferences missed the deadline of 20 ms, on 1 of 14 nodes that run the image: make the model "
        "cheaper or raise the deadline."
    )
    assert miss_reason(missed, M4) is None
    assert miss_reason(dataclasses.replace(missed, deadline_misses=0), hurried) is None
    assert miss_reason(None, hurried) is None


def test_a_profile_whose_deadline_cannot_be_kept_does_not_fit():
    hurried = dataclasses.replace(Profile("hurried"), latency_deadline_ms=0.05)

    built = build(request(convolution_model(), profiles=(Profile("patient"), hurried)), lambda stage, done: None)

    patient, refused = built.fits[built.images[0].digest]
    assert (patient.fits, refused.fits) == (True, False)
    assert "deadline is 0.05 ms" in refused.reasons[0]
    assert built.fp32_latency_ms is not None
    assert 0 < built.fp32_latency_ms[0] <= built.fp32_latency_ms[1]


def test_the_baselines_p50_and_p99_are_those_of_its_samples():
    ticks = iter(np.cumsum([0.0, *(step for n in range(100) for step in (0.002 if n == 7 else 0.001, 0.0))]))

    p50, p99 = fp32_latency_ms(convolution_model(), samples(100), clock=lambda: float(next(ticks)))

    assert p50 == pytest.approx(1)
    assert 1 < p99 <= 2
