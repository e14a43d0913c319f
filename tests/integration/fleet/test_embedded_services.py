"""Embedded PostgreSQL and Redis start, survive a crash, and leave nothing behind."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from redis import Redis

from fleet.embedded.paths import EmbeddedError, start_ticks
from fleet.embedded.services import Services, running, start_services


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    started = start_services(tmp_path / "var", environment={})
    yield started
    started.stop()


def pids_of(services: Services) -> list[int]:
    assert services.supervisor is not None
    return [pid for name in services.supervisor.names() if (pid := services.supervisor.pid(name)) is not None]


def test_both_services_answer(services: Services) -> None:
    with psycopg.connect(services.database_url) as connection:
        assert connection.execute("SHOW fsync").fetchone() == ("on",)
    with Redis.from_url(services.redis_url) as client:
        assert client.ping()


def test_a_stop_leaves_no_process(services: Services) -> None:
    pids = pids_of(services)
    services.stop()
    assert len(pids) == 2
    assert [start_ticks(pid) for pid in pids] == [None, None]


def test_committed_rows_survive_a_killed_database(services: Services) -> None:
    assert services.supervisor is not None
    with psycopg.connect(services.database_url) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    killed = services.supervisor.pid("postgres")
    services.supervisor.kill("postgres", signal.SIGKILL)
    while services.supervisor.pid("postgres") == killed:
        pass
    services.supervisor.wait_ready("postgres")
    with psycopg.connect(services.database_url) as connection:
        assert connection.execute("SELECT answer FROM kept").fetchone() == (42,)


def test_a_second_start_on_the_same_directory_is_refused(services: Services, tmp_path: Path) -> None:
    with pytest.raises(EmbeddedError, match="already runs the services"):
        start_services(tmp_path / "var", environment={})


def test_two_instances_run_side_by_side(services: Services, tmp_path: Path) -> None:
    other = start_services(tmp_path / "other", environment={})
    try:
        with psycopg.connect(other.database_url) as first, psycopg.connect(services.database_url) as second:
            first.execute("CREATE TABLE mine ()")
            assert second.execute("SELECT to_regclass('mine')").fetchone() == (None,)
    finally:
        other.stop()


def test_running_services_are_found_by_their_directory(services: Services, tmp_path: Path) -> None:
    found = running(tmp_path / "var")
    assert found is not None
    assert found.environment() == services.environment()


def test_given_addresses_are_used_and_nothing_is_started(tmp_path: Path) -> None:
    given = {"DATABASE_URL": "postgresql://u@db/x", "REDIS_URL": "redis://cache/0"}
    services = start_services(tmp_path / "var", environment=given)
    assert (services.environment(), services.supervisor) == (given, None)
    assert not (tmp_path / "var").exists()
