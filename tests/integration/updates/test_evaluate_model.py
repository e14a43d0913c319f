"""The command as CI calls it: another process, no database, no broker; exit status, document, images."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.unit.updates.pipeline.models import convolution_model, npz, samples
from updates.evaluation import BadInput, read_limits, read_profiles
from updates.pipeline.convert import fp32_outputs

ROOT = Path(__file__).resolve().parents[3]
ROOMY = "- {name: roomy, slot_bytes: 262144, sram_bytes: 131072, reserved_sram_bytes: 32768}\n"
TINY = "- {name: tiny, slot_bytes: 1024}\n"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("evaluate")
    inputs = samples(200, seed=3)
    labels = fp32_outputs(convolution_model(), inputs).argmax(1)
    kept = np.flatnonzero(labels == labels[0])[:3]
    (directory / "model.onnx").write_bytes(convolution_model())
    (directory / "c.npz").write_bytes(npz(inputs=samples(256)))
    (directory / "e.npz").write_bytes(
        npz(
            **{
                "inputs": inputs,
                "labels": labels,
                "inputs.zero-miss-arc": inputs[kept],
                "labels.zero-miss-arc": labels[kept],
            }
        )
    )
    wrong = {"inputs.zero-miss-arc": inputs[kept], "labels.zero-miss-arc": (labels[kept] + 1) % 4}
    (directory / "missed.npz").write_bytes(npz(inputs=inputs, labels=labels, **wrong))
    (directory / "broken.tflite").write_bytes(b"\x1c\0\0\0TFL3" + 90 * b"\xff")
    (directory / "limits.yaml").write_text(
        "{minimum_class_samples: 0, curve_accuracy_drop: 0.05, maximum_accuracy_drop: 0.05, minimum_agreement: 0.9, "
        "maximum_class_recall_drop: 0.2}\n"
    )
    return directory


def evaluate(
    directory: Path, profiles: str, *options: str, evaluation: str = "e.npz", model: str = "model.onnx"
) -> subprocess.CompletedProcess[str]:
    (directory / "p.yaml").write_text(profiles)
    unset = ("DATABASE_URL", "REDIS_URL")
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    arguments = [model, "--calibration", "c.npz", "--evaluation", evaluation, "--profiles", "p.yaml"]
    return subprocess.run(
        [sys.executable, ROOT / "manage.py", "evaluate_model", *arguments, "--limits", "limits.yaml", *options],
        cwd=directory,
        env=environment | {"MODELFLEET_VAR": str(directory / "var")},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def plain(files: Path) -> subprocess.CompletedProcess[str]:
    """An evaluation without a deployed image; its images and document are beside the files."""
    return evaluate(files, ROOMY, "--images", "images", "--json", "found.json")


def test_what_fits_and_passes_exits_0_with_the_document_and_the_images(
    files: Path, plain: subprocess.CompletedProcess[str]
) -> None:
    done = plain

    assert done.returncode == 0, done.stderr + done.stdout
    assert done.stdout.endswith("verdict: passed\n")
    found = json.loads((files / "found.json").read_text())
    assert found["verdict"] == "passed"
    [chosen] = [one for one in found["images"] if one["chosen"]]
    for image in found["images"]:
        data = (files / "images" / image["file"]).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (image["bytes"], image["digest"])
        assert image["arena_bytes"] > 0
    kinds = {(one["runtime"], one["precision"], one["granularity"]) for one in found["images"]}
    assert ("tflm", "int8", "fc-per-tensor") in kinds
    assert {"int8", "int16x8", "int4"} == {precision for _, precision, _ in kinds}
    [fit] = [one for one in found["fits"] if one["chosen"]]
    assert (fit["profile"], fit["fits"], fit["digest"]) == ("roomy", True, chosen["digest"])
    slices = {
        one["name"]: one
        for report in found["validation"]
        if report["digest"] == chosen["digest"]
        for one in report["slices"]
    }
    assert slices["zero-miss-arc"]["verdict"] == "passed"
    assert slices["noise-10db"]["perturbed"]
    assert found["curve"] == []


def test_one_miss_of_a_rare_catastrophe_and_a_profile_without_room_exit_1(files: Path) -> None:
    done = evaluate(files, ROOMY + TINY, "--json", "missed.json", evaluation="missed.npz")

    found = json.loads((files / "missed.json").read_text())
    assert (done.returncode, found["verdict"]) == (1, "failed")
    assert any(reason.startswith("roomy: ") and "this slice allows no miss" in reason for reason in found["reasons"])
    assert "this slice allows no miss" in done.stdout
    [without_room] = [reason for reason in found["reasons"] if reason.startswith("tiny: ")]
    assert without_room.startswith("tiny: None of 4 images fits tiny. The most accurate, int")
    assert "bytes, the slot 1024: make the model" in without_room


@pytest.mark.usefixtures("plain")
def test_against_a_deployed_image_there_is_a_curve(files: Path) -> None:
    base = next((files / "images").glob("*int8-fc-per-tensor*"))

    done = evaluate(files, ROOMY, "--against", str(base), "--images", "after", "--json", "curve.json")

    assert done.returncode == 0, done.stdout
    found = json.loads((files / "curve.json").read_text())
    [point] = [one for one in found["curve"] if one["chosen"]]
    assert point["digest"] in [one["digest"] for one in found["images"] if one["chosen"]]
    assert {"patch_bytes", "frames", "hours", "metric", "loss", "within_limit"} <= point.keys()
    assert all((files / "after" / one["file"]).exists() for one in found["curve"])


@pytest.mark.long
@pytest.mark.usefixtures("plain")
def test_the_class_and_the_contract_of_the_deployed_image_are_kept(files: Path) -> None:
    """Both kinds of int8 are alike here and the frugal one would win; int16 inputs would be less noisy than either."""
    found = json.loads((files / "found.json").read_text())
    [free] = found["choices"]
    noise = {(one["target"]["precision"], one["target"]["granularity"]): one["sqnr_db"] for one in free["alternatives"]}
    assert free["alternatives"][0]["target"]["precision"] == "int16x8"
    assert abs(noise["int8", "fc-per-tensor"] - noise["int8", "fc-per-channel"]) < 0.5
    base = next(one["file"] for one in found["images"] if one["granularity"] == "fc-per-channel")

    done = evaluate(files, ROOMY, "--against", f"images/{base}", "--json", "kept.json")

    assert done.returncode == 0, done.stdout
    [kept] = json.loads((files / "kept.json").read_text())["choices"]
    target = kept["alternatives"][0]["target"]
    assert (target["precision"], target["granularity"]) == ("int8", "fc-per-channel")


def test_a_network_that_cannot_run_exits_1_with_its_operator_and_every_key_of_the_document(files: Path) -> None:
    (files / "unsupported.onnx").write_bytes((ROOT / "demo/models/imu-unsupported.onnx").read_bytes())

    done = evaluate(files, ROOMY, "--json", "refused.json", model="unsupported.onnx")

    assert done.returncode == 1, done.stderr
    found = json.loads((files / "refused.json").read_text())
    assert (found["verdict"], found["refusal"]["code"]) == ("refused", "data_dependent_operator")
    assert "NonZero" in found["reasons"][0]
    assert done.stdout.endswith(f"{found['reasons'][0]}\nverdict: refused\n")
    keys = {"images", "fits", "validation", "choices", "curve", "curve_refusal", "guards", "left_out"}
    assert keys | {"fp32_latency_ms", "profiles", "tools", "verdict", "reasons", "refusal"} == found.keys()
    assert [one["name"] for one in found["profiles"]] == ["roomy"]
    said = evaluate(files, ROOMY, "--json", "-", model="unsupported.onnx")
    assert (said.returncode, json.loads(said.stdout)) == (1, found)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--against", "model.onnx"], "--against: it is no .tflite image"),
        (["--against", "broken.tflite"], "--against: it cannot be read as a .tflite image"),
        (["--json", "nowhere/found.json"], "--json: nowhere/found.json: it is no file in a directory that exists"),
        (["--images", "model.onnx"], "--images: model.onnx: it is no directory"),
        (["--report", "other=c.npz"], "--report: other=c.npz: it names no profile"),
        (["--linker-map", "roomy=c.npz"], "--linker-map: roomy: map: it has no memory configuration"),
        (["--time-axis", "-1"], "signal.time_axis: -1 is no dimension"),
    ],
)
def test_bad_input_exits_2_with_one_line_that_names_it_before_any_work(
    files: Path, options: list[str], said: str
) -> None:
    done = evaluate(files, ROOMY, *options)

    assert done.returncode == 2, done.stdout
    assert done.stdout == ""
    [line] = done.stderr.strip().splitlines()
    assert said in line


def test_files_that_are_not_what_they_should_be_exit_2_and_name_the_field(files: Path) -> None:
    cases = {"model.onnx": "evaluation: it is not a readable .npz", "missing.npz": "--evaluation: missing.npz"}
    for evaluation, said in cases.items():
        done = evaluate(files, ROOMY, evaluation=evaluation)
        assert (done.returncode, done.stderr.strip().splitlines()[-1].count(said)) == (2, 1), done.stderr


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "P: it is no list of profiles"),
        ("{name: a}", "P: it is no list of profiles"),
        ("[", "P: it is not YAML"),
        ("- 7", "P: profile 1: 7 is no table"),
        ("- {sram: 5}", "P: profile 1: 'sram' is no field of a hardware profile; use name, core"),
        ("- {id: 5}", "P: profile 1: 'id' is no field"),
        ("- {sram_bytes: lots}", "P: profile 1: sram_bytes: 'lots'"),
        ("- {sram_bytes: 1.5}", "P: profile 1: sram_bytes: 1.5 is no whole number"),
        ("- {sram_bytes: true}", "P: profile 1: sram_bytes: True is no single value"),
        ("- {sram_bytes: null}", "P: profile 1: sram_bytes: None"),
        ("- {slot_bytes: -4}", "P: profile 1: slot_bytes: -4"),
        ("- {slot_bytes: 0}", "P: profile 1: slot_bytes: 0 is too small"),
        ("- {runtime: rust}", "use tflm, stm32cubeai, tvm"),
        ("- {arena_fraction: 7}", "P: profile 1: arena_fraction: 7"),
        ("- {alignment: 12}", "P: profile 1: alignment: 12 cannot be reached; use 4, 8, 16, 32, 64"),
        ("- {sram_bytes: 100, reserved_sram_bytes: 100}", "reserved_sram_bytes: 100 leaves nothing of 100 bytes"),
        ("- {name: a}\n- {name: a}", "P: name: 'a' is given twice"),
    ],
)
def test_a_bad_profile_is_named_by_number_field_and_fix(text: str, said: str) -> None:
    with pytest.raises(BadInput) as caught:
        read_profiles(text, source="P")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_a_profile_leaves_out_has_its_default() -> None:
    [profile, other] = read_profiles(
        "- {name: a, kernel_library: reference, latency_deadline_ms: 20}\n- {}", source="P"
    )

    assert (profile.slot_bytes, profile.sram_bytes, profile.reserved_sram_bytes) == (262_144, 131_072, 32_768)
    assert (profile.arena_fraction, profile.runtime, profile.core) == (0.70, "tflm", "cortex-m4f")
    assert (profile.kernel_library, profile.latency_deadline_ms) == ("reference", 20)
    assert other.name == "profile-2"


def test_limits_are_read_and_a_misspelt_one_is_bad_input() -> None:
    assert read_limits("zero_miss: [arc]\nminimum_agreement: 0.9").zero_miss == ("arc",)
    with pytest.raises(BadInput, match="--limits: limits: 'agreement' is unknown"):
        read_limits("agreement: 0.9")
