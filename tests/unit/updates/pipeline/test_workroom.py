from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from updates.pipeline.workroom import workroom

ROOT = Path(__file__).resolve().parents[4]
WORKER = (
    "import sys, time\n"
    "from updates.pipeline.workroom import workroom\n"
    "with workroom() as room:\n"
    "    (room / 'model.onnx').write_bytes(b'x')\n"
    "    print(room, flush=True)\n"
    "    sys.stdin.read()\n"
)


@pytest.fixture(autouse=True)
def own_place(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def at_work(tmp_path: Path) -> tuple[subprocess.Popen[str], Path]:
    worker = subprocess.Popen(
        [sys.executable, "-c", WORKER],
        cwd=ROOT,
        env={"TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert worker.stdout is not None
    return worker, Path(worker.stdout.readline().strip())


def test_a_directory_is_gone_when_its_build_has_ended_well_or_not(tmp_path):
    with workroom() as room:
        (room / "inner").mkdir()
    with pytest.raises(ValueError, match="refused"), workroom():
        raise ValueError("refused")

    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_worker_left_goes_with_the_next_build_and_what_is_at_work_stays(tmp_path):
    killed, abandoned = at_work(tmp_path)
    living, used = at_work(tmp_path)
    killed.kill()
    killed.wait()
    assert abandoned.exists()

    with workroom() as room:
        assert not abandoned.exists()
        assert (used / "model.onnx").exists()
        assert room.exists()

    living.communicate("")
    assert list(tmp_path.iterdir()) == []


def test_a_directory_of_that_name_that_is_none_of_ours_is_left_alone(tmp_path):
    foreign = tmp_path / "modelfleet-build-notes"
    foreign.mkdir()

    with workroom():
        pass

    assert foreign.exists()
