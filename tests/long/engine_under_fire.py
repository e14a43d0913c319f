"""A nursery of workers that kill themselves: `python -m tests.long.engine_under_fire SLOT SEED` beside a test.

It forks one child after the other from a process in which Django is loaded. Each child ticks and drains on a connection
of its own until, before or after a statement drawn by the seed, it sends itself SIGKILL; then the next is born at once.
A line on standard output tells of each death. It ends when standard input ends.
"""

from __future__ import annotations

import logging
import os
import random
import select
import signal
import sys

import django

django.setup()

# Models can be imported from here on; in the nursery once, not in each child.
from django.utils import timezone  # noqa: E402

from tests.integration.updates.campaigns.killing import at_statement  # noqa: E402
from updates.campaigns.ingest import drain  # noqa: E402
from updates.campaigns.work import tick_all  # noqa: E402

DEADLINE_S = 60
# Before and after each of 100 statements: a tick or a batch takes 20 to 90, and some must get through.
MOMENTS = 200


def main() -> int:
    logging.disable(logging.CRITICAL)
    slot, seed = int(sys.argv[1]), int(sys.argv[2])
    chance = random.Random(1000 * seed + slot)
    while not select.select([sys.stdin], [], [], 0)[0]:
        moment, first = chance.randrange(MOMENTS), chance.randrange(2)
        child = os.fork()
        if child == 0:
            signal.alarm(DEADLINE_S)
            _live_until(moment, first)
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status) or os.WTERMSIG(status) != signal.SIGKILL:
            print(f"wrong end {status}", flush=True)
            return 1
        print("killed", flush=True)
    return 0


def _live_until(moment: int, first: int) -> None:
    try:
        with at_statement(moment, lambda: os.kill(os.getpid(), signal.SIGKILL)):
            for turn in range(first, 2**30):
                if turn % 2:
                    tick_all(now=timezone.now())
                else:
                    drain(now=timezone.now(), limit=8)
    except BaseException as error:
        print(repr(error), file=sys.stderr, flush=True)
        os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
