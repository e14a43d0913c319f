"""Two connections at the same moment, in an order that PostgreSQL itself confirms."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

from django.db import connection, transaction

PATIENCE_S = 30.0


@dataclass
class Outcome:
    """How the second of two ended, and whether PostgreSQL made it wait for the first."""

    waited: bool = False
    result: Any = None
    error: Exception | None = None


def race(first: Callable[[], object], second: Callable[[], object]) -> Outcome:
    """Runs `second` on a connection of its own while `first` has done its work but not committed.

    `first` commits once PostgreSQL says that `second` waits for it (or once `second` has ended without waiting, as it
    does when a guard is missing).
    """
    outcome = Outcome()
    backend: SimpleQueue[int] = SimpleQueue()
    ended = threading.Event()

    def run_second() -> None:
        try:
            connection.ensure_connection()
            backend.put(connection.connection.info.backend_pid)
            with transaction.atomic():
                outcome.result = second()
        except Exception as error:  # handed to the test, which says which one it wants
            outcome.error = error
        finally:
            connection.close()
            ended.set()

    thread = threading.Thread(target=run_second)
    with transaction.atomic(), connection.cursor() as cursor:
        first()
        thread.start()
        pid = backend.get(timeout=PATIENCE_S)
        deadline = time.monotonic() + PATIENCE_S
        while not outcome.waited and not ended.wait(0.005):
            assert time.monotonic() < deadline, "the second connection neither ended nor waited for the first"
            cursor.execute("SELECT pg_backend_pid() = ANY (pg_blocking_pids(%s))", [pid])
            outcome.waited = cursor.fetchone() == (True,)
    thread.join(PATIENCE_S)
    return outcome


def on_another_connection(work: Callable[[], object]) -> Outcome:
    """Runs `work` on a connection of its own, with nothing open here."""
    return race(lambda: None, work)
