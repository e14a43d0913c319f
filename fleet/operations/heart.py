"""The heart of a process: it writes at most every 10 s, from wherever the process shows that it still turns."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from datetime import datetime

import structlog
from django.db import DatabaseError, connection
from django.utils import timezone

from fleet.operations.models import ProcessKind
from fleet.operations.services import beat, leave

EVERY_S = 10.0
# Three beats: one may be lost with a restart of the database.
DEAD_AFTER_S = 3 * EVERY_S
log = structlog.get_logger(__name__)


def process_name() -> str:
    return f"{socket.gethostname()}:{os.getpid()}"


class Heart:
    """Beats when it is called and the last beat is `EVERY_S` old. A database that is away is no reason to end."""

    def __init__(
        self,
        kind: ProcessKind,
        *,
        name: str = "",
        serves: str = "",
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = timezone.now,
    ) -> None:
        self.kind, self.name, self.serves = kind, name or process_name(), serves
        self._clock, self._now = clock, now
        self._started_at = now()
        self._next = clock()

    def beat(self) -> bool:
        """Whether it wrote."""
        if self._clock() < self._next:
            return False
        self._next = self._clock() + EVERY_S
        try:
            beat(kind=self.kind, name=self.name, serves=self.serves, started_at=self._started_at, now=self._now())
        except DatabaseError as error:
            log.warning("heartbeat.failed", kind=self.kind, error=type(error).__name__)
            return False
        finally:
            # A worker forks: its children must not inherit a connection, and one beat in 10 s needs none to wait.
            connection.close()
        return True

    def stop(self) -> None:
        try:
            leave(kind=self.kind, name=self.name)
        except DatabaseError as error:
            log.warning("heartbeat.failed", kind=self.kind, error=type(error).__name__)
        finally:
            connection.close()

    def beat_on_a_thread(self, stopping: threading.Event) -> threading.Thread:
        """For a process without a loop of its own to beat from. Ends, and takes leave, when `stopping` is set."""

        def run() -> None:
            self.beat()
            while not stopping.wait(EVERY_S):
                self.beat()
            self.stop()

        thread = threading.Thread(target=run, name="heart", daemon=True)
        thread.start()
        return thread
