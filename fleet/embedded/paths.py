"""Where embedded services keep their files, and how they recognise processes that belong to them.

Data and logs live in `var`. Sockets live elsewhere, because a socket path may have 107 bytes at most
(`sun_path`, Linux unix(7)) and a clone may sit deeper than that.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

SOCKET_PATH_LIMIT = 107
LONGEST_SOCKET_NAME = ".s.PGSQL.5432.lock"


class EmbeddedError(RuntimeError):
    """An embedded service cannot run here. The message says what to do."""


def write_private(path: Path, text: str) -> None:
    """Write `text` to `path` whole or not at all, readable by the owner only."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    Path(temporary).replace(path)


def private_directory(path: Path) -> Path:
    """Create `path` with mode 0700, or tighten it to that."""
    path.mkdir(parents=True, exist_ok=True)
    path.chmod(0o700)
    return path


def socket_directory(var: Path) -> Path:
    """The private directory (0700) for the sockets of the services of `var`.

    It is recorded in `var/socket-directory` and used again while it is still ours, so that addresses
    stay the same when a killed supervisor starts again.
    """
    record = var / "socket-directory"
    if record.exists():
        known = Path(record.read_text())
        if _is_ours(known):
            return known
    for parent in (tempfile.gettempdir(), "/tmp"):  # noqa: S108 - mkdtemp makes a private directory in it
        if len(f"{parent}/modelfleet-12345678/{LONGEST_SOCKET_NAME}".encode()) <= SOCKET_PATH_LIMIT:
            directory = Path(tempfile.mkdtemp(prefix="modelfleet-", dir=parent))
            write_private(record, str(directory))
            return directory
    raise EmbeddedError(
        f"TMPDIR={tempfile.gettempdir()} is too long for a socket path; set TMPDIR to a short directory"
    )


def remove_socket_directory(var: Path) -> None:
    """Remove what `socket_directory` made, unless a clean-up of temporary files was faster."""
    record = var / "socket-directory"
    if record.exists():
        known = Path(record.read_text())
        if _is_ours(known):
            shutil.rmtree(known)
        record.unlink()


def _is_ours(directory: Path) -> bool:
    """A stranger may have taken the name in a shared directory after a clean-up; never follow it."""
    if directory.is_symlink() or not directory.is_dir():
        return False
    status = directory.stat()
    return status.st_uid == os.geteuid() and status.st_mode & 0o077 == 0


def start_ticks(pid: int) -> int | None:
    """When process `pid` started, in clock ticks since boot (proc(5), field 22); None if it has ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    state, *fields = stat.rpartition(")")[2].split()
    return None if state in "ZX" else int(fields[18])


def program_of(pid: int) -> str | None:
    """Name of the program that process `pid` runs, cut to 15 bytes (proc(5), comm); None if it has ended."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return None


def processes_working_in(directory: Path, program: str) -> list[int]:
    """Pids of processes named `program` whose working directory is `directory`: leftovers of a killed supervisor.

    PostgreSQL and Redis both change into their data directory, which nobody else uses.
    """
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            if (entry / "comm").read_text().strip() == program and (entry / "cwd").readlink() == directory.resolve():
                found.append(int(entry.name))
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue  # ended while we looked, or another user's: either way not ours
    return found
