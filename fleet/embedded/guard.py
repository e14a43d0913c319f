"""Ends the process groups of a supervisor that was killed.

Started by the supervisor with a pipe as standard input. Lines `+<group> <signal> <seconds>` and `-<group>` tell which
groups exist, how to stop them and how long that may take. The end of the pipe means that the supervisor is gone. Needs
the standard library only: it starts in milliseconds and must not fail for want of an import.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import TextIO


def read_groups(orders: TextIO) -> dict[int, tuple[int, float]]:
    """Groups still alive, with stop signal and grace in seconds, when `orders` ends."""
    groups: dict[int, tuple[int, float]] = {}
    for order in orders:
        if not order.endswith("\n"):
            break  # the supervisor was killed while it wrote
        if order.startswith("+"):
            group, number, grace_s = order[1:].split()
            groups[int(group)] = int(number), float(grace_s)
        else:
            groups.pop(int(order[1:]), None)
    return groups


def signal_group(group: int, number: int) -> bool:
    """Send `number` (0 only asks) to a process group; False once it has no members."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    return True


def end_groups(groups: dict[int, tuple[int, float]]) -> None:
    """Stop every group by its own signal, and by SIGKILL when its grace is over."""
    now = time.monotonic()
    deadlines = {group: now + grace_s for group, (number, grace_s) in groups.items() if signal_group(group, number)}
    while deadlines:
        time.sleep(0.05)
        for group, deadline in list(deadlines.items()):
            late = time.monotonic() > deadline
            if not signal_group(group, signal.SIGKILL if late else 0) or late:
                del deadlines[group]


if __name__ == "__main__":
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    end_groups(read_groups(sys.stdin))
