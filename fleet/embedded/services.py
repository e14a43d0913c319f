"""PostgreSQL and Redis for one `var` directory: those that DATABASE_URL and REDIS_URL name, else our own."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path

from fleet.embedded import postgres, redis
from fleet.embedded.paths import (
    EmbeddedError,
    private_directory,
    remove_socket_directory,
    socket_directory,
    start_ticks,
    write_private,
)
from fleet.embedded.supervisor import Process, Supervisor, say_on_terminal


@dataclass(frozen=True)
class Services:
    """Addresses of the services in use. `supervisor` is None if this process started none of them."""

    database_url: str
    redis_url: str
    supervisor: Supervisor | None = None
    _var: Path | None = None
    _lock: TextIOWrapper | None = None

    def environment(self) -> dict[str, str]:
        """What a child process needs to use these services."""
        return {"DATABASE_URL": self.database_url, "REDIS_URL": self.redis_url}

    def stop(self) -> None:
        """Stop what `start_services` started; services started by others go on. Calling it again does nothing."""
        if self.supervisor is None or self._var is None or self._lock is None or self._lock.closed:
            return
        self.supervisor.stop()
        _release(self._var, self._lock)


def start_services(
    var: Path,
    durable: bool = True,
    *,
    environment: Mapping[str, str] = os.environ,
    say: Callable[[str], None] = say_on_terminal,
) -> Services:
    """Start PostgreSQL and Redis with their data in `var`, and return when both answer.

    A server named by DATABASE_URL or REDIS_URL in `environment` is used instead and nothing is started for it.
    `durable=False` trades safety against a power cut for speed: for tests only. Raises EmbeddedError if another
    process already runs the services of `var`, or if a service does not start.
    """
    given_database, given_redis = environment.get("DATABASE_URL"), environment.get("REDIS_URL")
    if given_database and given_redis:
        return Services(given_database, given_redis)
    var = private_directory(var.absolute())
    lock = _take_lock(var)
    supervisor = Supervisor(logs=var / "log", say=say)
    try:
        sockets = socket_directory(var)
        processes: list[Process] = []
        if not given_database:
            processes.append(postgres.process(var, sockets, durable=durable, say=say))
        if not given_redis:
            processes.append(redis.process(var, sockets, durable=durable))
        supervisor.start()
        supervisor.add(*processes)
        services = Services(
            given_database or postgres.url(var, sockets), given_redis or redis.url(sockets), supervisor, var, lock
        )
        owner = {"pid": os.getpid(), "start_ticks": start_ticks(os.getpid())}
        write_private(var / "services.json", json.dumps(services.environment() | owner))
    except BaseException:
        supervisor.stop()
        _release(var, lock)
        raise
    return services


def running(var: Path) -> Services | None:
    """The services of `var` if a living process runs them: for commands typed beside a running demo."""
    record = var / "services.json"
    if not record.exists():
        return None
    known = json.loads(record.read_text())
    if start_ticks(known["pid"]) != known["start_ticks"]:
        return None
    return Services(known["DATABASE_URL"], known["REDIS_URL"])


def _take_lock(var: Path) -> TextIOWrapper:
    """One owner for each `var`. The kernel frees the lock when its owner dies, however it dies."""
    lock = (var / "services.lock").open("a+")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.seek(0)
        owner = lock.read()
        lock.close()
        raise EmbeddedError(f"process {owner} already runs the services of {var}; stop it or use another var") from None
    lock.truncate(0)
    lock.write(str(os.getpid()))
    lock.flush()
    return lock


def _release(var: Path, lock: TextIOWrapper) -> None:
    (var / "services.json").unlink(missing_ok=True)
    remove_socket_directory(var)
    lock.close()
