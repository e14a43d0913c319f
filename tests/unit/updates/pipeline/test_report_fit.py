"""Reports of graph compilers held against profiles."""

from __future__ import annotations

import dataclasses

from updates.pipeline.reports.fitting import judged, report_fit
from updates.pipeline.reports.st_validation import Evaluation
from updates.pipeline.reports.types import RuntimeReport
from updates.pipeline.types import Profile, ValidationLimits

REPORT = RuntimeReport(
    runtime="stm32cubeai",
    form="weights",
    tool="ST Edge AI Core",
    tool_version="3.0.0",
    series="stm32u5",
    model_name="network",
    model_signature="0x1",
    slot_bytes=10_000,
    activations_bytes=5_000,
    io_bytes=400,
    runtime_ram_bytes=600,
    runtime_flash_bytes=90_000,
)
ROOM = Profile(
    "u5", runtime="stm32cubeai", slot_bytes=10_000, sram_bytes=16_000, reserved_sram_bytes=4_000, arena_fraction=0.5
)


def test_the_weights_alone_count_against_the_slot_and_all_ram_against_the_limit() -> None:
    found = report_fit(REPORT, ROOM)

    assert found.fits, found.reasons
    assert (found.image_bytes, found.arena_bytes, found.arena_limit_bytes) == (10_000, 6_000, 6_000)
    assert found.evidence == "compiler-report"


def test_one_byte_more_does_not_fit_and_says_so() -> None:
    [slot] = report_fit(dataclasses.replace(REPORT, slot_bytes=10_001), ROOM).reasons
    [ram] = report_fit(dataclasses.replace(REPORT, io_bytes=401), ROOM).reasons

    assert "10001 bytes, the slot 10000: make the model 1 bytes smaller" in slot
    assert "needs 6001 bytes of RAM, 6000 are allowed" in ram


def test_another_runtime_or_series_is_refused() -> None:
    assert "profile runs tflm" in report_fit(REPORT, dataclasses.replace(ROOM, runtime="tflm")).reasons[0]
    assert (
        "generated for stm32u5, the profile's chip is stm32f446"
        in report_fit(REPORT, ROOM, chip="stm32f446").reasons[0]
    )


def row(model: str, accuracy: float, samples: int = 100) -> Evaluation:
    return Evaluation(model, 1, samples, accuracy, None, None, None, None)


def test_the_c_model_on_the_chip_is_held_to_the_owners_limit_and_one_sample_decides() -> None:
    def verdict(target: float, samples: int = 100) -> str:
        rows = [row("original model", 0.90), row("HOST c-model", 0.90), row("TARGET c-model", target, samples)]
        return judged(rows, ValidationLimits()).verdict

    assert verdict(0.88) == "passed"
    assert verdict(0.87) == "failed"
    assert verdict(0.90, samples=99) == "inconclusive"


def test_a_report_of_a_computer_proves_nothing_of_the_chip() -> None:
    assert judged([row("original model", 0.9), row("HOST c-model", 0.9)], ValidationLimits()).verdict == "inconclusive"
    assert judged([], ValidationLimits()).verdict == "inconclusive"
