from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from updates.pipeline import child
from updates.pipeline.types import Refused

STAGES = "tests.unit.updates.pipeline.stages"


def refusal(directory: Path, name: str, **limits: float) -> Refused:
    with pytest.raises(Refused) as caught:
        child.run("judge", f"{STAGES}:{name}", directory, {}, **limits)  # type: ignore[arg-type]
    return caught.value


def ended(pid: int, within_s: float) -> bool:
    """Whether the process is gone or waits to be reaped: a killed one may take a moment to die."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
    return False


def test_a_stage_returns_its_results(tmp_path):
    assert child.run("check", f"{STAGES}:answer", tmp_path, {"question": 41}) == {"answer": 42}


def test_a_stage_that_hangs_is_killed_with_its_children(tmp_path):
    refused = refusal(tmp_path, "hang", time_limit_s=2)

    assert (refused.stage, refused.code) == ("judge", "time_limit")
    grandchild = int((tmp_path / "grandchild").read_text())
    assert ended(grandchild, within_s=5)


def test_a_stage_that_devours_memory_is_refused_with_the_limit(tmp_path):
    refused = refusal(tmp_path, "devour")

    assert refused.code == "memory_limit"
    assert str(2 * 1024**3) in refused.message


def test_a_stage_that_aborts_is_told_by_the_end_of_its_stderr(tmp_path):
    refused = refusal(tmp_path, "abort")

    assert refused.code == "crashed"
    assert "schema version 99 is not supported" in refused.message


def test_a_refusal_crosses_the_process_border_whole(tmp_path):
    refused = refusal(tmp_path, "refuse")

    assert vars(refused) == {"stage": "judge", "code": "c", "field": "f", "message": "m", "fix": "x"}
    assert str(refused) == "f: m; x."


def test_an_old_result_is_never_taken_for_a_new_one(tmp_path):
    child.run("check", f"{STAGES}:answer", tmp_path, {"question": 1})

    assert refusal(tmp_path, "abort").code == "crashed"


def test_a_killed_worker_leaves_no_stage_behind(tmp_path):
    worker = subprocess.Popen(
        [
            sys.executable,
            "-c",
            (
                "import sys; from pathlib import Path; from updates.pipeline import child;"
                f"child.run('judge', '{STAGES}:wait_forever', Path(sys.argv[1]), {{}})"
            ),
            str(tmp_path),
        ],
        cwd=Path(__file__).resolve().parents[4],
    )
    stage: list[psutil.Process] = []
    deadline = time.monotonic() + 20
    while not (stage and _waits(stage[0])):
        assert time.monotonic() < deadline
        stage = psutil.Process(worker.pid).children()

    worker.kill()
    worker.wait()

    _, alive = psutil.wait_procs(stage, timeout=10)
    assert not alive


def _waits(process: psutil.Process) -> bool:
    """In `wait_forever`, past its limits being set: it sleeps and holds the limit."""
    return process.status() == psutil.STATUS_SLEEPING and process.rlimit(psutil.RLIMIT_CORE)[0] == 0
