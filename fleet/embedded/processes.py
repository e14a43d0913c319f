"""Ending processes that are not our children."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence

from fleet.embedded.paths import start_ticks


def end_processes(pids: Sequence[int], number: signal.Signals, *, within_s: float) -> None:
    """Send `number` to each process, SIGKILL after `within_s`, and return when all have ended."""
    alive = {pid: ticks for pid in pids if (ticks := start_ticks(pid)) is not None}
    deadline = time.monotonic() + within_s
    _send(alive, number)
    while alive := {pid: ticks for pid, ticks in alive.items() if start_ticks(pid) == ticks}:
        if time.monotonic() > deadline:
            _send(alive, signal.SIGKILL)
        time.sleep(0.02)


def _send(pids: dict[int, int], number: signal.Signals) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue
