"""A million mutated patches and bases through the node's decoder, built with the address and undefined-behaviour
sanitizers: no crash, no access outside the images, no wrong image accepted."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from docs.vectors.patch_seeds import patch_of, seeds

ROOT = Path(__file__).parents[2]
AGENT = ROOT / "devices/agent"
SOURCES = [AGENT / "patch.c", AGENT / "patch_model.c", AGENT / "patch_weights.c", AGENT / "sha256.c"]
CHECKS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g", "-O1", "-ffp-contract=off", "-std=c99"]
LED_RUNS = 200_000
COMPILER = shutil.which("clang") or shutil.which("gcc")


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.skipif(COMPILER is None, reason="needs clang or gcc to build the fuzzer")
def test_a_million_mutated_patches_crash_nothing_and_pass_no_wrong_image(tmp_path: Path) -> None:
    result = fuzz(tmp_path, rounds=1_000_000)
    assert result.returncode == 0, result.stdout + result.stderr[-3000:]


@pytest.mark.skipif(COMPILER is None, reason="needs clang or gcc to build the fuzzer")
def test_some_thousand_mutated_patches_crash_nothing_and_pass_no_wrong_image(tmp_path: Path) -> None:
    result = fuzz(tmp_path, rounds=20_000)
    assert result.returncode == 0, result.stdout + result.stderr[-3000:]


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.skipif(shutil.which("clang") is None, reason="libFuzzer comes with clang")
def test_a_fuzzer_led_by_what_it_reaches_finds_no_crash(tmp_path: Path) -> None:
    program, corpus = tmp_path / "fuzz", tmp_path / "corpus"
    corpus.mkdir()
    for number, seed in enumerate(seeds()):
        patch = patch_of(seed)
        (corpus / str(number)).write_bytes(len(patch).to_bytes(2, "little") + patch + seed[2])
    files = [str(path) for path in [*SOURCES, ROOT / "tests/long/patch_fuzz.c"]]
    checks = [CHECKS[0].replace("=", "=fuzzer,"), *CHECKS[1:], "-DLIBFUZZER"]
    subprocess.run(["clang", *checks, f"-I{AGENT}", *files, "-o", str(program)], check=True)

    limits = ["-seed=7", f"-runs={LED_RUNS}", "-max_len=8192", f"-artifact_prefix={tmp_path}/"]
    result = subprocess.run([str(program), *limits, str(corpus)], capture_output=True, text=True, check=False)

    assert result.returncode == 0, result.stderr[-3000:]
    assert f"Done {LED_RUNS} runs" in result.stderr


def fuzz(scratch: Path, rounds: int) -> subprocess.CompletedProcess[str]:
    assert COMPILER is not None
    program, file = scratch / "fuzz", scratch / "seeds"
    files = [str(path) for path in [*SOURCES, ROOT / "tests/long/patch_fuzz.c"]]
    subprocess.run([COMPILER, *CHECKS, f"-I{AGENT}", *files, "-o", str(program)], check=True)
    parts = [part for seed in seeds() for part in (seed[2], seed[3], patch_of(seed))]
    file.write_bytes(b"".join(len(part).to_bytes(4, "little") + part for part in parts))
    return subprocess.run([str(program), str(file), str(rounds), "7"], capture_output=True, text=True, check=False)
