from __future__ import annotations

import json
from typing import Any

import pytest

from updates.pipeline.reports import read_report
from updates.pipeline.reports.st_validation import read as read_evaluation
from updates.pipeline.reports.swap import series_refusal, swap_refusals
from updates.pipeline.reports.types import ReportInvalid

TEXT = """ST Edge AI Core v3.0.0-20426 123672867
model_name         :   keyword
model_hash         :   0x1f
target/series      :   stm32l4
macc               :   5,313
weights (ro)       :   724 B (724 B) (1 segment) / -1,904(-72.5%) vs float model
activations (rw)   :   1,444 B (1.41 KiB) (1 segment) *
ram (total)        :   1,764 B (1.72 KiB) = 1,444 + 300 + 20
 RT total**                       14,242      159    348       8
"""


def st_document(**changes: Any) -> dict[str, Any]:
    weight = {"id": 3, "name": "w", "offset_start": 0, "size_bytes": 160, "is_param": True, "format": "S8"}
    weight |= {"shape": [16, 10], "intq": {"scales": [0.5], "offsets": [0]}}
    bias = {
        "id": 4,
        "name": "b",
        "offset_start": 160,
        "size_bytes": 64,
        "is_param": True,
        "format": "S32",
        "shape": [16],
    }
    output = {"id": 5, "name": "y", "offset_start": 0, "size_bytes": 16, "is_param": False, "format": "S8"}
    output |= {"shape": [16], "intq": {"scales": [0.25], "offsets": [-128]}}
    node = {"type": "Dense", "attributes": {"units": "16"}, "inputs": [3, 4], "outputs": [5], "macc": 160}
    model = {"name": "keyword", "model_files": [{"name": "k.onnx", "signature": "0x1f"}]}
    document: dict[str, Any] = {
        "json_schema_version": "2.0",
        "environment": {"tools": [{"name": "ST.EdgeAI.Core", "version": "3.0.0", "input_model": model}]},
        "memory_footprint": {
            "weights": 224,
            "activations": 1000,
            "io": [10, 16],
            "kernel_ram": 300,
            "toolchain_ram": 4,
            "kernel_flash": 9000,
            "toolchain_flash": 2000,
            "series": "stm32l4",
        },
        "buffers": [weight, bias, output],
        "graphs": [{"nodes": [node]}],
    }
    return document | changes


def as_bytes(document: object) -> bytes:
    return json.dumps(document).encode()


def test_ram_of_an_st_report_is_activations_io_and_what_the_run_time_keeps() -> None:
    report = read_report(as_bytes(st_document()))
    assert (report.slot_bytes, report.ram_bytes) == (224, 1000 + 26 + 304)
    assert (report.series, report.model_signature, report.multiply_accumulates) == ("stm32l4", "0x1f", 160)
    assert [(one.name, one.offset, one.size) for one in report.weights] == [("w", 0, 160), ("b", 160, 64)]


def test_the_text_report_gives_the_same_numbers_by_its_own_lines() -> None:
    report = read_report(TEXT.encode())
    assert (report.form, report.slot_bytes, report.ram_bytes) == ("weights", 724, 1444 + 320 + 356)
    assert (report.tool_version, report.series, report.multiply_accumulates) == ("3.0.0-20426", "stm32l4", 5313)


def test_a_relocatable_binary_fills_the_slot_with_its_code_too() -> None:
    report = read_report((TEXT + "binary file size:  51,520 B\nparams file size:  3,000 B\n").encode())
    assert (report.form, report.slot_bytes) == ("relocatable", 54_520)


def test_workspace_and_constants_of_tvm_are_read_from_files_with_and_without_modules() -> None:
    main = [{"device": 1, "workspace_size_bytes": 900, "constants_size_bytes": 8000, "io_size_bytes": 18}]
    memory = {"functions": {"main": main, "operator_functions": []}}
    older = read_report(as_bytes({"version": 5, "memory": memory, "target": {"1": "c -mcpu=cortex-m7"}}))
    newer = read_report(
        as_bytes({"version": 7, "modules": {"kws": {"memory": memory, "target": ["c -mcpu=cortex-m7"]}}})
    )
    for report in (older, newer):
        assert (report.runtime, report.slot_bytes, report.ram_bytes, report.series) == ("tvm", 8000, 918, "cortex-m7")


@pytest.mark.parametrize(
    ("data", "field"),
    [
        (b"\xff\xfe\xfa", "report"),
        (b"{", "report"),
        (b"[1]", "report"),
        (as_bytes({"anything": 1}), "memory.functions.main"),
        (as_bytes(st_document(json_schema_version="1.0")), "json_schema_version"),
        (as_bytes(st_document(memory_footprint={"weights": -1, "activations": 0})), "memory_footprint.weights"),
        (as_bytes(st_document(memory_footprint={"weights": 100, "activations": 0})), "buffers"),
        (b"ST Edge AI Core v3.0.0-1\nweights (ro) : 10 B\n", "activations (rw)"),
    ],
)
def test_a_report_that_cannot_be_believed_names_the_field(data: bytes, field: str) -> None:
    with pytest.raises(ReportInvalid) as refused:
        read_report(data)
    assert refused.value.field == field


def test_weight_arrays_that_overlap_are_refused() -> None:
    document = st_document()
    document["buffers"][1]["offset_start"] = 100
    with pytest.raises(ReportInvalid, match="overlap"):
        read_report(as_bytes(document))


def test_weights_may_be_swapped_when_graph_and_scales_are_the_same() -> None:
    renumbered = json.loads(json.dumps(st_document()))
    for buffer in renumbered["buffers"]:
        buffer["id"] += 100
    renumbered["graphs"][0]["nodes"][0] |= {"inputs": [103, 104], "outputs": [105]}
    assert swap_refusals(read_report(as_bytes(st_document())), read_report(as_bytes(renumbered))) == ()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda d: d["graphs"][0]["nodes"][0].update(attributes={"units": "17"}), "graph is another one"),
        (lambda d: d["buffers"][2]["intq"].update(scales=[0.26]), "scales of activations"),
        (lambda d: d["buffers"][0]["intq"].update(scales=[0.51]), "scales of weights"),
        (lambda d: d["environment"]["tools"][0].update(version="3.1.0"), "tool version"),
        (lambda d: d["memory_footprint"].update(series="stm32h7"), "chip series"),
    ],
)
def test_a_swap_is_refused_with_what_differs(change: Any, reason: str) -> None:
    other = st_document()
    change(other)
    reasons = swap_refusals(read_report(as_bytes(st_document())), read_report(as_bytes(other)))
    assert any(reason in one for one in reasons)


def test_a_text_report_alone_does_not_allow_a_swap() -> None:
    assert any(
        "network_c_info.json" in one for one in swap_refusals(read_report(TEXT.encode()), read_report(TEXT.encode()))
    )


def test_a_report_for_another_series_says_nothing_of_a_chip() -> None:
    report = read_report(as_bytes(st_document()))
    assert series_refusal(report, chip="stm32l476rg") is None
    assert "stm32u545re" in str(series_refusal(report, chip="STM32U545RE".lower()))


def test_the_rows_of_an_on_target_validation_are_read_with_their_samples() -> None:
    rows = read_evaluation(
        "Output              acc       rmse      mae      l2r      mean     std      nse      cos      tensor\n"
        "-----\n"
        "TARGET c-model #1   98.29%    0.08      0.011    0.16     0.0   0.08  0.96  0.98  'y', 527 x f32(1x4), m_id=[16]\n"
        "X-cross #1          n.a.      0.00000004  0.01   0.00     -0.0  0.0  1.0  1.0  'y', 527 x f32(1x4), m_id=[16]\n"
    )
    assert [(row.model, row.on_target, row.samples) for row in rows] == [
        ("TARGET c-model", True, 527),
        ("X-cross", False, 527),
    ]
    assert (rows[0].accuracy, rows[0].cosine, rows[1].accuracy) == (pytest.approx(0.9829), 0.98, None)


def test_a_text_without_an_evaluation_table_is_refused() -> None:
    with pytest.raises(ReportInvalid, match="stedgeai validate"):
        read_evaluation(TEXT)
