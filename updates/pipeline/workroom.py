"""The directory of one build. A killed worker leaves its own behind: the next build takes that away.

Who works in a directory holds a lock on a file in it, which the kernel lets go when the process ends, however it ended.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_NAME, _LOCK = "modelfleet-build-", "lock"


@contextmanager
def workroom() -> Iterator[Path]:
    """Empty but for its lock, and gone at the end."""
    _take_away_abandoned()
    # Under another name until the lock is held: nobody takes it away in between.
    made = Path(tempfile.mkdtemp(prefix="modelfleet-new-"))
    lock = os.open(made / _LOCK, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        room = made.rename(made.with_name(made.name.replace("modelfleet-new-", _NAME, 1)))
        try:
            yield room
        finally:
            shutil.rmtree(room)
    finally:
        os.close(lock)


def _take_away_abandoned() -> None:
    for room in Path(tempfile.gettempdir()).glob(f"{_NAME}*"):
        try:
            lock = os.open(room / _LOCK, os.O_RDWR)
        except OSError:
            continue  # somebody else's, or being taken away at this moment
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue  # at work
        else:
            shutil.rmtree(room, ignore_errors=True)
        finally:
            os.close(lock)
