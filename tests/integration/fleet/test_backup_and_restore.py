"""A backup that is made while a campaign runs brings everything back on the embedded default; the keys are kept apart."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fleet.embedded.services import start_services
from updates.patches.signing import generate_key_file

ROOT = Path(__file__).resolve().parents[3]
PATIENCE_S = 120.0
KEYS = ("secret-key", "signing-key.pem")
GIVEN = ("DATABASE_URL", "REDIS_URL", "SECRET_KEY", "SIGNING_KEY_FILE", "MODELFLEET_SIGNING_KEY")


class Installation:
    """One `var` with embedded services, and commands as somebody would type them beside it."""

    def __init__(self, var: Path) -> None:
        self.var = var
        self.environment = {key: value for key, value in os.environ.items() if key not in GIVEN}
        self.environment |= {"MODELFLEET_VAR": str(var)}

    @contextmanager
    def running(self) -> Iterator[None]:
        services = start_services(self.var, durable=False, environment={})
        try:
            yield
        finally:
            services.stop()

    def manage(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.python("manage.py", *arguments)

    def campaign(self, act: str) -> str:
        done = self.python("-m", "tests.integration.fleet.campaign_under_way", act)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def python(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *arguments], cwd=ROOT, env=self.environment, capture_output=True, text=True,
            timeout=PATIENCE_S, check=False,
        )  # fmt: skip

    def at_work(self) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "tests.integration.fleet.campaign_under_way", "work"]
        process = subprocess.Popen(
            command, cwd=ROOT, env=self.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "working\n"
        return process


@pytest.fixture(scope="module")
def backed_up(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, str]:
    """The file, the directory of the keys, and the revert command of a campaign whose machine is gone."""
    tmp_path = tmp_path_factory.mktemp("backup")
    lost, keys, file = Installation(tmp_path / "lost"), tmp_path / "keys", tmp_path / "fleet.dump"
    keys.mkdir()
    with lost.running():
        generate_key_file(lost.var / "signing-key.pem")
        revert = lost.campaign("begin")
        worker = lost.at_work()
        done = lost.manage("backup", str(file))
        assert worker.poll() is None, "the campaign was to be under way"
        worker.communicate(timeout=PATIENCE_S)
        assert done.returncode == 0, done.stderr
        assert "keep them apart: SECRET_KEY" in done.stdout
        for name in KEYS:
            shutil.copy2(lost.var / name, keys / name)
    shutil.rmtree(lost.var)
    return file, keys, revert


def test_a_campaign_goes_on_where_its_backup_was_made(backed_up: tuple[Path, Path, str], tmp_path: Path) -> None:
    file, keys, revert = backed_up
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    fresh = Installation(tmp_path / "fresh")
    fresh.var.mkdir()
    for name in KEYS:
        shutil.copy2(keys / name, fresh.var / name)
    with fresh.running():
        restored = fresh.manage("restore", str(file))
        assert restored.returncode == 0, restored.stdout + restored.stderr
        # Nodes refuse a sequence that is not above the last; what the lost machine drew after the backup is skipped.
        sequence = re.search(r"gets the sequence (\d+)", restored.stdout)
        assert sequence is not None and int(sequence[1]) > 10_000
        reconciled = fresh.manage("reconcile")
        assert reconciled.returncode == 0, reconciled.stdout
        confirmed, *rest = fresh.campaign("finish").split()
        assert int(confirmed) < 60
        assert rest == ["finished", "confirmed", "[]", revert]
        again = fresh.manage("restore", str(file))
        assert again.returncode == 1
        assert "a restore overwrites nothing" in again.stderr


def test_a_restore_without_the_keys_says_which_are_missing(backed_up: tuple[Path, Path, str], tmp_path: Path) -> None:
    other = Installation(tmp_path / "other")
    with other.running():
        restored = other.manage("restore", str(backed_up[0]))
    assert restored.returncode == 1
    assert "SECRET_KEY is not the one that sealed this database" in restored.stdout
    assert "Put the signing key of the backup in place" in restored.stdout


def test_a_backup_overwrites_no_file_and_leaves_no_half(tmp_path: Path) -> None:
    installation = Installation(tmp_path / "var")
    (tmp_path / "taken.dump").write_text("an older backup")
    with installation.running():
        taken = installation.manage("backup", str(tmp_path / "taken.dump"))
        nowhere = installation.manage("backup", str(tmp_path / "nowhere" / "new.dump"))
    gone = installation.manage("backup", str(tmp_path / "new.dump"))
    assert [done.returncode for done in (taken, nowhere, gone)] == [1, 1, 1]
    assert "is there already" in taken.stderr
    assert (tmp_path / "taken.dump").read_text() == "an older backup"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["taken.dump", "var"]


def test_a_cut_backup_restores_nothing(backed_up: tuple[Path, Path, str], tmp_path: Path) -> None:
    file, _, _ = backed_up
    cut = tmp_path / "cut.dump"
    cut.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    installation = Installation(tmp_path / "var")
    with installation.running():
        assert installation.manage("restore", str(cut)).returncode == 1
        whole = installation.manage("restore", str(file))
    assert "a restore overwrites nothing" not in whole.stderr  # the cut one left no table behind
