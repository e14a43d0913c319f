from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from updates.pipeline.evidence import ArenaEvidence, Measured
from updates.pipeline.fit import fit
from updates.pipeline.types import Latency, Profile

PROFILE = Profile("p", slot_bytes=1000, sram_bytes=3000, reserved_sram_bytes=1000)  # 70 % of 2000


def verdict(**changed: Any):
    changed["arena"] = ArenaEvidence(changed.pop("arena_bytes", 1400), **changed.pop("more_evidence", {}))
    facts = {"image_bytes": 1000, "alignment": 16, "operators": ("CONV_2D",), "profile": PROFILE}
    return fit(**{**facts, **changed})


def test_an_image_at_both_limits_fits():
    found = verdict()

    assert (found.fits, found.reasons, found.arena_limit_bytes) == (True, (), 1400)
    assert found.evidence == "tflm-bisected-x86"


@pytest.mark.parametrize(
    ("changed", "numbers"),
    [
        ({"image_bytes": 1001}, ("1001", "1000", "1 bytes smaller")),
        ({"arena_bytes": 1401}, ("1401", "1400", "3000", "1000")),
        ({"firmware_arena_bytes": 1399}, ("1400", "1399")),
        ({"decoder_ram_bytes": 601}, ("1400 + 601", "2000", "1 bytes smaller")),
        ({"alignment": 8}, ("8", "16")),
        ({"profile": dataclasses.replace(PROFILE, cache_line_bytes=32)}, ("16", "32")),
        ({"available_operators": frozenset({"ADD"})}, ("CONV_2D",)),
        ({"runtime": "tvm"}, ("tvm", "tflm")),
    ],
)
def test_one_too_much_is_one_reason_with_its_numbers(changed, numbers):
    found = verdict(**changed)

    assert not found.fits
    assert len(found.reasons) == 1
    assert all(number in found.reasons[0] for number in numbers)


def test_the_patch_decoder_shares_what_the_arena_leaves_and_both_slots_are_counted():
    found = verdict(decoder_ram_bytes=600)

    assert (found.fits, found.available_sram_bytes, found.decoder_ram_bytes) == (True, 2000, 600)
    assert found.both_slots_bytes == 2000


def test_a_nodes_own_memory_beats_its_profiles():
    assert not verdict(overrides={"slot_bytes": 999}).fits
    assert not verdict(overrides={"sram_bytes": 2999}).fits
    assert verdict(image_bytes=2000, arena_bytes=2100, overrides={"slot_bytes": 2000, "sram_bytes": 4000}).fits


@pytest.mark.parametrize(
    ("more_evidence", "needed", "evidence"),
    [
        ({"estimates": {"cmsis-nn": 1500}}, 1500, "analytic-32-bit"),  # its scratch is more than was seen here
        ({"estimates": {"cmsis-nn": 1300, "reference": 9000}}, 1400, "tflm-bisected-x86"),
        ({"estimates": {"cmsis-nn": 1300}, "reported_bytes": 1600}, 1600, "node-reported"),
        ({"estimates": {"cmsis-nn": 1300}, "precision": "int4"}, 1300, "analytic-32-bit"),  # unpacked here, not there
    ],
)
def test_the_largest_evidence_that_applies_decides_and_is_named(more_evidence, needed, evidence):
    found = verdict(more_evidence=more_evidence)

    assert (found.arena_bytes, found.evidence) == (needed, evidence)
    assert found.fits == (needed <= 1400)


def test_what_nodes_measured_counts_for_arena_and_deadline_and_stands_in_the_verdict():
    hurried = dataclasses.replace(PROFILE, latency_deadline_ms=20)
    estimate = Latency(0, 0, (1, 1, 1), (30.0, 40.0, 50.0), "estimate", "assumed")
    fine = Measured(3, arena_bytes=1390, arena_nodes=2, p99_ms=19.9, p99_nodes=3, inferences=900)
    late = dataclasses.replace(fine, p99_ms=20.1)
    missing = dataclasses.replace(fine, deadline_misses=2, missing_nodes=1)
    hungry = dataclasses.replace(fine, arena_bytes=1401)

    def judged(measured):
        return verdict(profile=hurried, latency=estimate, measured=measured)

    assert not judged(None).fits
    assert (judged(fine).fits, judged(fine).evidence) == (True, "tflm-bisected-x86")
    assert judged(fine).arena_by_evidence == {"node-reported": 1390, "tflm-bisected-x86": 1400}
    assert judged(fine).measured == fine
    for wrong, said in ((late, "takes 20.1 ms"), (missing, "2 of 900 inferences"), (hungry, "needs 1401 bytes")):
        [reason] = judged(wrong).reasons
        assert said in reason
    assert judged(hungry).evidence == "node-reported"


def test_without_any_evidence_there_is_no_verdict():
    with pytest.raises(ValueError, match="nothing is known"):
        verdict(arena_bytes=None)


def test_an_unknown_override_is_an_error():
    with pytest.raises(ValueError, match="sram_byte"):
        verdict(overrides={"sram_byte": 1})


def test_the_firmwares_arena_lowers_the_limit_that_is_shown():
    assert verdict(arena_bytes=500, firmware_arena_bytes=600).arena_limit_bytes == 600


@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_the_limit_is_the_profiles_own_and_never_negative(sram, reserved):
    profile = Profile("p", sram_bytes=sram, reserved_sram_bytes=reserved)
    limit = verdict(profile=profile).arena_limit_bytes

    assert limit == profile.arena_limit_bytes >= 0
    assert verdict(profile=profile, image_bytes=0, arena_bytes=limit).fits
    assert not verdict(profile=profile, image_bytes=0, arena_bytes=limit + 1).fits
