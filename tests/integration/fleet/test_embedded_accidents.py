"""Embedded services after a SIGKILL, with stale files, and under other users than ours."""

from __future__ import annotations

import os
import pwd
import select
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from fleet.embedded.paths import processes_working_in
from fleet.embedded.redis import program
from fleet.embedded.services import start_services

ROOT = Path(__file__).parents[3]
PATIENCE_S = 60.0
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user, which only root may")
USE_BOTH = """
import os, psycopg, redis
with psycopg.connect(os.environ["DATABASE_URL"]) as connection:
    connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
redis.Redis.from_url(os.environ["REDIS_URL"]).ping()
print("up", os.geteuid(), flush=True)
input()
"""


@pytest.fixture
def var() -> Iterator[Path]:
    """A directory that other users can reach, which pytest's own is not."""
    parent = Path(tempfile.mkdtemp(prefix="modelfleet-var-"))
    parent.chmod(0o755)
    yield parent / "var"
    shutil.rmtree(parent)


def supervise(var: Path, *prefix: str) -> subprocess.Popen[str]:
    """`python -m fleet.embedded` with a command that uses both services, says `up`, and waits for its input to end."""
    command = [*prefix, sys.executable, "-m", "fleet.embedded", "--var", str(var), "run", "--not-durable", "--"]
    environment = {key: value for key, value in os.environ.items() if key not in ("DATABASE_URL", "REDIS_URL")}
    return subprocess.Popen(
        [*command, sys.executable, "-c", USE_BOTH],
        cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def servers(var: Path) -> list[int]:
    redis = program().name[:15]
    return [*processes_working_in(var / "postgres", "postgres"), *processes_working_in(var / "redis", redis)]


def wait_until_ended(pids: list[int]) -> None:
    for pid in pids:
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        ended, _, _ = select.select([descriptor], [], [], PATIENCE_S)
        os.close(descriptor)
        assert ended, f"process {pid} outlives its supervisor"


def test_a_killed_supervisor_leaves_no_server_and_its_data_serve_again(var: Path) -> None:
    supervisor = supervise(var)
    assert supervisor.stdout is not None
    assert supervisor.stdout.readline().startswith("up")
    pids = servers(var)
    assert len(pids) >= 2
    supervisor.kill()
    supervisor.wait(PATIENCE_S)
    wait_until_ended(pids)
    supervisor.communicate(timeout=PATIENCE_S)

    services = start_services(var, durable=False, environment={})
    try:
        with psycopg.connect(services.database_url) as connection:
            assert connection.execute("SELECT answer FROM kept").fetchone() == (42,)
    finally:
        services.stop()


@pytest.mark.parametrize("content", [f"{os.getpid()}\n", ""], ids=["names a stranger that lives", "is empty"])
def test_a_stale_postmaster_pid_does_not_keep_the_database_from_starting(var: Path, content: str) -> None:
    start_services(var, durable=False, environment={}).stop()
    (var / "postgres" / "postmaster.pid").write_text(content)
    services = start_services(var, durable=False, environment={})
    try:
        with psycopg.connect(services.database_url) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
    finally:
        services.stop()


@needs_root
def test_an_ordinary_user_runs_both_services(var: Path) -> None:
    nobody = pwd.getpwnam("nobody")
    os.chown(var.parent, nobody.pw_uid, nobody.pw_gid)
    # Reading is allowed everywhere, because the interpreter of this test may lie in root's own directory.
    supervisor = supervise(
        var, "setpriv", f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups",
        "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search", "--",
    )  # fmt: skip
    output, errors = supervisor.communicate("\n", timeout=PATIENCE_S)
    assert (supervisor.returncode, output) == (0, f"up {nobody.pw_uid}\n"), errors
    assert {path.stat().st_uid for path in [var, *var.rglob("*")]} == {nobody.pw_uid}


@needs_root
def test_root_without_user_namespaces_runs_the_database_as_nobody_and_says_so(
    var: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "unshare").write_text("#!/bin/sh\nexit 1\n")  # as where the kernel forbids it
    (tmp_path / "unshare").chmod(0o755)
    start_services(var, durable=False, environment={}).stop()  # data made where namespaces were allowed
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    said: list[str] = []
    services = start_services(var, durable=False, environment={}, say=said.append)
    try:
        with psycopg.connect(services.database_url) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
        owner = pwd.getpwuid((var / "postgres").stat().st_uid).pw_name
        assert (owner, len(said)) == ("nobody", 1)
        assert "PostgreSQL runs as nobody" in said[0]
        assert var.stat().st_mode & 0o077 == 0
    finally:
        services.stop()
    assert servers(var) == []
