"""The benchmark harness prints, records, and fails where a figure misses its limit."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

import tests.benchmarks
from tests.benchmarks import pipeline
from tests.benchmarks.__main__ import main

Plant = Callable[[dict[str, float], dict[str, tuple[str, float]]], list[int | None]]


@pytest.fixture
def plant(monkeypatch: pytest.MonkeyPatch) -> Plant:
    """Makes a benchmark `sample` with these figures and limits; returns the list of sizes that it is run with."""

    def make(figures: dict[str, float], limits: dict[str, tuple[str, float]]) -> list[int | None]:
        sizes: list[int | None] = []

        def run(n: int | None) -> dict[str, float]:
            sizes.append(n)
            return figures

        module = ModuleType("tests.benchmarks.sample")
        module.__dict__.update(LIMITS=limits, run=run)
        monkeypatch.setattr("tests.benchmarks.__main__.known", lambda: ["sample"])
        monkeypatch.setitem(sys.modules, "tests.benchmarks.sample", module)
        monkeypatch.setattr(tests.benchmarks, "sample", module, raising=False)
        return sizes

    return make


def test_kept_limits_end_with_success_and_stand_beside_each_figure(
    plant: Plant, capsys: pytest.CaptureFixture[str]
) -> None:
    plant({"tick_max_s": 0.25, "rows": 10_000}, {"tick_max_s": ("<=", 1.0)})
    assert main(["sample"]) == 0
    header, tick, rows = capsys.readouterr().out.splitlines()
    assert header.split() == ["figure", "value", "limit"]
    assert tick.split() == ["tick_max_s", "0.25", "<=", "1", "kept"]
    assert rows.split() == ["rows", "10000"]


@pytest.mark.parametrize(
    ("figure", "limit"),
    [(1.1, ("<=", 1.0)), (1.0, ("<", 1.0)), (0.9, (">=", 1.0)), (1.0, (">", 1.0)), (2.0, ("==", 1.0))],
)
def test_a_missed_limit_fails(
    plant: Plant, capsys: pytest.CaptureFixture[str], figure: float, limit: tuple[str, float]
) -> None:
    plant({"figure": figure, "fine": 0.0}, {"figure": limit, "fine": ("<=", 0.0)})
    assert main(["sample"]) == 1
    assert capsys.readouterr().out.count("MISSED") == 1


def test_an_absent_figure_fails(plant: Plant, capsys: pytest.CaptureFixture[str]) -> None:
    plant({}, {"campaign_10k_s": ("<=", 10.0)})
    assert main(["sample"]) == 1
    assert "absent" in capsys.readouterr().out


def test_networks_from_files_bring_limits_of_their_own(plant: Plant, tmp_path: Path) -> None:
    plant({}, {"ratio": (">=", 1.0)})
    module = sys.modules["tests.benchmarks.sample"]
    figures = {"ratio": 2.0, "found_db": 39.0}
    module.__dict__.update(run=lambda n, models=None: figures, limits_with=lambda models: {"found_db": (">=", 40.0)})

    assert main(["sample"]) == 0
    assert main(["sample", "--models", str(tmp_path)]) == 1


def test_only_networks_that_are_there_are_held_to_their_noise(tmp_path: Path) -> None:
    (tmp_path / "resnet8_fp32.onnx").touch()
    (tmp_path / "unknown_fp32.onnx").touch()

    assert pipeline.limits_with(tmp_path) == {"resnet8_sqnr_db": (">=", 18.5)}


@pytest.mark.parametrize("sign", ["<=", ">=", "=="])
def test_a_figure_that_is_no_number_fails(plant: Plant, sign: str) -> None:
    plant({"figure": float("nan")}, {"figure": (sign, 0.0)})
    assert main(["sample"]) == 1


def test_the_record_holds_name_figures_and_limits_also_when_one_misses(plant: Plant, tmp_path: Path) -> None:
    plant({"figure": 2.0}, {"figure": ("<=", 1.0)})
    assert main(["sample", "--json", str(tmp_path / "out.json")]) == 1
    assert json.loads((tmp_path / "out.json").read_text()) == {
        "name": "sample",
        "figures": {"figure": 2.0},
        "limits": {"figure": ["<=", 1.0]},
    }


@pytest.mark.parametrize(("arguments", "size"), [([], None), (["--n", "500"], 500)])
def test_the_size_reaches_the_benchmark(plant: Plant, arguments: list[str], size: int | None) -> None:
    sizes = plant({}, {})
    assert main(["sample", *arguments]) == 0
    assert sizes == [size]


def test_an_unknown_name_lists_the_known_ones(plant: Plant, capsys: pytest.CaptureFixture[str]) -> None:
    plant({}, {})
    assert main(["nosuch"]) == 2
    assert "there are: sample" in capsys.readouterr().err
