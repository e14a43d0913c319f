"""Celery's scheduler with a heart: it beats from the loop that sends the wake-ups."""

from __future__ import annotations

import socket
from typing import Any

from celery.beat import PersistentScheduler

from fleet.operations.heart import Heart
from fleet.operations.models import ProcessKind


class BeatingScheduler(PersistentScheduler):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # One only, so a new one takes the row of one that was killed.
        self._heart = Heart(ProcessKind.BEAT, name=f"beat@{socket.gethostname()}")

    def tick(self, *args: Any, **kwargs: Any) -> float:
        # After a wake-up was sent, or none was due: a broker that refuses them ends in an exception before this line.
        pause: float = super().tick(*args, **kwargs)
        self._heart.beat()
        return pause

    def close(self) -> None:
        super().close()
        self._heart.stop()
