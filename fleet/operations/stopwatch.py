from __future__ import annotations

import time
from collections.abc import Callable


class Stopwatch:
    """Tells how many seconds each stage took when the next one begins. A stage that fails is not told."""

    def __init__(self, tell: Callable[[str, float], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._tell, self._clock = tell, clock
        self._stage, self._began = "", clock()

    def begin(self, stage: str) -> None:
        now = self._clock()
        if self._stage:
            self._tell(self._stage, now - self._began)
        self._stage, self._began = stage, now
