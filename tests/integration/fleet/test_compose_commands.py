"""Each service of docker-compose.yml, run by hand with the file's own command and environment, serves.

No container engine is needed: addresses of the neighbours become those of the test's servers, ports become free
ones, and the file's own health check is what must succeed.
"""

from __future__ import annotations

import os
import re
import secrets
import shlex
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
import yaml
from redis import Redis

from updates.patches.signing import generate_key_file

ROOT = Path(__file__).parents[3]
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
OURS = {name: service for name, service in SERVICES.items() if "build" in service}
CHECKED = [name for name, service in OURS.items() if "healthcheck" in service]
PATIENCE_S = 60.0
EVERYWHERE = "0.0.0.0"  # noqa: S104 - of the file; nothing listens there in this test
FILE_PORTS = ("8000", "5683")  # in commands, environments and health checks of the file


@pytest.fixture(scope="module")
def database_url() -> Iterator[str]:
    """A new, empty database beside that of the tests, for the `migrate` service to fill."""
    name = f"compose_{secrets.token_hex(4)}"
    given = os.environ["DATABASE_URL"]
    with psycopg.connect(given, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")  # type: ignore[arg-type,unused-ignore]
        yield urlsplit(given)._replace(path=f"/{name}").geturl()
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")  # type: ignore[arg-type,unused-ignore]


@pytest.fixture(scope="module")
def ports() -> dict[str, str]:
    """A free port for each that the file names, free for TCP and UDP alike."""
    free = {}
    for port in FILE_PORTS:
        with socket.socket() as stream, socket.socket(type=socket.SOCK_DGRAM) as datagram:
            stream.bind(("127.0.0.1", 0))
            datagram.bind(stream.getsockname())
            free[port] = str(stream.getsockname()[1])
    return free


@pytest.fixture(scope="module")
def environment(database_url: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What differs between the containers and this test: where the neighbours are, and where files may lie."""
    var = tmp_path_factory.mktemp("var")
    generate_key_file(var / "signing-key.pem")
    return {
        "DATABASE_URL": database_url,
        "REDIS_URL": os.environ["REDIS_URL"],
        "SIGNING_KEY_FILE": str(var / "signing-key.pem"),
        "MODELFLEET_VAR": str(var),
        "TICK_SECONDS": "0.1",
    }


@pytest.fixture(scope="module")
def call(environment: dict[str, str], ports: dict[str, str]) -> Callable[[str, list[str]], dict[str, Any]]:
    """Arguments for subprocess: a service's environment as the file has it, with `environment` on top."""

    def arguments(service: str, command: list[str]) -> dict[str, Any]:
        written = {
            key: re.sub(r"\$\{(\w+)[^}]*\}", lambda match: f"value-of-{match[1].lower()}", value)
            for key, value in OURS[service]["environment"].items()
        }
        variables = {key: ports.get(value, value) for key, value in written.items()} | environment
        path = f"{ROOT / '.venv/bin'}:{os.environ['PATH']}"
        local = [ports.get(word, word).replace(EVERYWHERE, "127.0.0.1") for word in command]
        return {"args": local, "cwd": ROOT, "env": {"HOME": os.environ.get("HOME", "/"), "PATH": path} | variables}

    return arguments


@pytest.fixture(scope="module")
def migrated(call: Callable[..., dict[str, Any]]) -> None:
    command = shlex.split(SERVICES["migrate"]["command"])
    subprocess.run(**call("migrate", command), check=True, capture_output=True, timeout=PATIENCE_S)


@contextmanager
def run(call: Callable[..., dict[str, Any]], service: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The service's command in a process group of its own, which ends with the block."""
    with log.open("wb") as output:
        arguments = call(service, shlex.split(SERVICES[service]["command"]))
        process = subprocess.Popen(**arguments, stdout=output, stderr=output, start_new_session=True)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(PATIENCE_S)
        finally:
            if process.poll() is None:
                process.kill()


def until(condition: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    """Return when `condition` holds; fail with the log when the process ends first or patience does."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        try:
            process.wait(0.1)
        except subprocess.TimeoutExpired:
            assert time.monotonic() < deadline, f"not serving after {PATIENCE_S:g} s:\n{log.read_text()}"
        else:
            pytest.fail(f"ended with exit code {process.returncode}:\n{log.read_text()}")


@pytest.mark.usefixtures("migrated")
def test_beat_wakes_every_queue_that_has_a_worker(call: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    queues = [match[1] for name in OURS if (match := re.search(r"-Q (\S+)", OURS[name]["command"]))]
    with Redis.from_url(os.environ["REDIS_URL"]) as broker:
        broker.delete(*queues)
        with run(call, "beat", tmp_path / "log") as process:
            until(lambda: all(broker.llen(queue) for queue in queues), process, tmp_path / "log")
        broker.delete(*queues)
    assert sorted(queues) == ["campaigns", "links", "pipeline"]


def test_migrate_fills_an_empty_database(migrated: None, database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        assert connection.execute("SELECT to_regclass('updates_campaign') IS NOT NULL").fetchone() == (True,)


def test_each_service_that_runs_on_is_checked_here() -> None:
    assert set(OURS) - set(CHECKED) == {"migrate"}
    assert set(HEARTS) == set(CHECKED)


HEARTS = {"web": ("web", ""), "beat": ("beat", ""), "lwm2m": ("gateway", "nbiot")} | {
    f"worker-{queue}": ("worker", queue) for queue in ("pipeline", "campaigns", "links")
}
# The command of `worker-links` for another queue.
OTHER_WORKERS = ("worker-pipeline", "worker-campaigns")


@pytest.mark.usefixtures("migrated")
@pytest.mark.parametrize(
    "service", [pytest.param(name, marks=pytest.mark.long if name in OTHER_WORKERS else ()) for name in CHECKED]
)
def test_a_service_says_that_it_lives_and_passes_its_own_health_check_only_while_it_runs(
    service: str, call: Callable[..., dict[str, Any]], database_url: str, tmp_path: Path
) -> None:
    kind, *check = OURS[service]["healthcheck"]["test"]
    assert kind == "CMD"

    def healthy() -> bool:
        done = subprocess.run(**call(service, check), capture_output=True, timeout=PATIENCE_S, check=False)
        return done.returncode == 0

    def beats() -> bool:
        with psycopg.connect(database_url) as connection:
            rows = connection.execute("SELECT kind, serves FROM operations_heartbeat").fetchall()
        return HEARTS[service] in rows

    with psycopg.connect(database_url) as connection:
        connection.execute("DELETE FROM operations_heartbeat")  # a web process of an earlier test left its row
    assert not healthy()
    with run(call, service, tmp_path / "log") as process:
        until(beats, process, tmp_path / "log")
        until(healthy, process, tmp_path / "log")
    assert process.returncode == 0, (tmp_path / "log").read_text()
    # A web process gets no last word from granian; its row shows its age, and goes after an hour.
    assert beats() == (service == "web")
