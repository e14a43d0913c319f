"""Simulated time: everything in the simulator waits and counts by this clock, never by the wall's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Clock:
    """`time_scale` simulated seconds pass in one second of the running event loop."""

    def __init__(self, time_scale: float) -> None:
        if not time_scale > 0:
            raise ValueError(f"time scale: {time_scale}, must be more than 0 simulated seconds per second")
        self._scale = time_scale
        self._loop = asyncio.get_running_loop()
        self._started = self._loop.time()

    def now(self) -> float:
        """Simulated seconds since the clock was made."""
        return (self._loop.time() - self._started) * self._scale

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(max(0.0, seconds) / self._scale)

    def wall(self, seconds: float) -> float:
        """Seconds of the wall clock that `seconds` of simulated time take."""
        return seconds / self._scale

    def call_later(self, seconds: float, callback: Callable[..., None], *arguments: object) -> asyncio.TimerHandle:
        return self._loop.call_later(seconds / self._scale, callback, *arguments)
