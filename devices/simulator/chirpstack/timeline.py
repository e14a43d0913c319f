"""What happens when, in simulated time: events run in the order of their times, and each is told the time it was due.

Radio windows are a second wide, which at 60 times the clock is 17 ms: a loop that is late by that must not change who
hears whom. So the radio counts by due times and never asks the clock.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable

from devices.simulator.clock import Clock


class Timeline:
    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self._events: list[tuple[float, int, Callable[[float], None]]] = []
        self._numbers = itertools.count()
        self._timer: asyncio.TimerHandle | None = None
        self.failure: BaseException | None = None  # a defect of the simulator; whoever runs it has to look
        self._due = 0.0  # of the event that runs now, or ran last

    def now(self) -> float:
        """Simulated seconds; inside of an event the time it was due."""
        return self._due

    def catch_up(self) -> float:
        """For what comes from outside (an API call, a finished child): the clock's time, never before the last event."""
        self._due = max(self._due, self.clock.now())
        return self._due

    def at(self, time_s: float, event: Callable[[float], None]) -> None:
        """Call `event(time_s)` when the clock has come to `time_s`."""
        heapq.heappush(self._events, (max(time_s, self._due), next(self._numbers), event))
        if self._events[0][2] is event:
            self._arm()

    def stop(self) -> None:
        self._events.clear()
        if self._timer is not None:
            self._timer.cancel()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        if self._events:
            self._timer = self.clock.call_later(self._events[0][0] - self.clock.now(), self._run)

    def _run(self) -> None:
        try:
            while self._events and self._events[0][0] <= self.clock.now():
                time_s, _, event = heapq.heappop(self._events)
                self._due = time_s
                event(time_s)
        except Exception as error:
            self.failure = error
            raise
        finally:
            self._arm()
