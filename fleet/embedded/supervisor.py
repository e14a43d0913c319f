"""Runs named processes, each in a process group of its own, until all of them are stopped together.

A process that ends by itself is started again. Nothing outlives the supervisor: a stop ends whole groups, and
if the supervisor itself is killed, the kernel signals each process (PR_SET_PDEATHSIG, prctl(2)) and a guard
process (`fleet.embedded.guard`) ends what is left of its group.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fleet.embedded.paths import EmbeddedError
from fleet.embedded.runner import Runner

GUARD = Path(__file__).with_name("guard.py")
POLL_S = 0.05


@dataclass(frozen=True, kw_only=True)
class Process:
    """One program to keep running.

    `environment` is added to ours. `prepare` runs before each start. `ready` answers whether the program can be
    used; it must become true within `ready_within_s`. To stop, the program gets `stop_signal`, and its whole group
    SIGKILL after `stop_within_s`.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] | None = None
    directory: Path | None = None
    prepare: Callable[[], None] | None = None
    ready: Callable[[], bool] | None = None
    ready_within_s: float = 30.0
    stop_signal: signal.Signals = signal.SIGTERM
    stop_within_s: float = 10.0


def say_on_terminal(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


class Supervisor:
    """Keeps `processes` running, in their order; logs go to `logs/<name>.log`.

    `say` hears of crashes and restarts; `echo`, if given, gets every log line as `<name> | <line>`.
    """

    def __init__(
        self,
        processes: Sequence[Process] = (),
        *,
        logs: Path,
        say: Callable[[str], None] = say_on_terminal,
        echo: Callable[[str], None] | None = None,
    ) -> None:
        self._processes = list(processes)
        self._logs = logs
        self._say = say
        self._echo = echo
        self._runners: dict[str, Runner] = {}
        self._guard: subprocess.Popen[str] | None = None
        self._guard_lock = threading.Lock()
        self._changing = threading.RLock()
        self._stopped = threading.Event()

    def start(self) -> None:
        """Start every process, each after the one before it is ready. On failure stop all and raise EmbeddedError."""
        self._logs.mkdir(parents=True, exist_ok=True)
        self.add(*self._processes)

    def add(self, *processes: Process) -> None:
        """Start more processes under the same supervisor. If one does not get ready, everything stops."""
        with self._changing:
            if self._stopped.is_set():
                raise EmbeddedError("this supervisor has been stopped; make a new one")
            for process in processes:
                if process.name in self._runners:
                    raise ValueError(f"process name {process.name!r} is taken; names must differ")
                runner = Runner(process, self._logs / f"{process.name}.log", self._say, self._echo, self._tell_guard)
                self._runners[process.name] = runner
                runner.start()
                try:
                    self.wait_ready(process.name, process.ready_within_s)
                except BaseException:  # Ctrl-C during start must stop what runs, too
                    self.stop()
                    raise

    def wait_ready(self, name: str, within_s: float = 30.0) -> None:
        """Return once process `name` runs and answers; raise EmbeddedError, with the end of its log, after `within_s`."""
        runner = self._runners[name]
        deadline = time.monotonic() + within_s
        while not runner.is_ready():
            if time.monotonic() > deadline:
                raise EmbeddedError(
                    f"{name} was not ready within {within_s:g} s. The end of its log:\n{runner.log.tail()}"
                )
            time.sleep(POLL_S)

    def wait(self) -> None:
        """Block until SIGINT or SIGTERM arrives (call from the main thread) or `stop` is called, then stop everything."""
        previous = {
            number: signal.signal(number, lambda *_: self._stopped.set()) for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            self._stopped.wait()
            self.stop()
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def stop(self) -> None:
        """Stop all processes, the last started first. Calling it again does nothing."""
        self._stopped.set()
        with self._changing:
            while self._runners:
                self._runners[next(reversed(self._runners))].stop()
                self._runners.popitem()
            if self._guard is not None and self._guard.stdin is not None:
                self._guard.stdin.close()
                self._guard.wait()
                self._guard = None

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to process `name` itself, not to its group. Does nothing while it is between two lives."""
        self._runners[name].kill(number)

    def pid(self, name: str) -> int | None:
        """Pid of process `name`; None while it is between a crash and the next start."""
        return self._runners[name].pid()

    def names(self) -> list[str]:
        """Names of the processes, in the order in which they were started."""
        return list(self._runners)

    def _tell_guard(self, order: str) -> None:
        with self._guard_lock:
            if self._guard is None:
                self._guard = subprocess.Popen(
                    [sys.executable, "-S", "-E", str(GUARD)], stdin=subprocess.PIPE, text=True, start_new_session=True
                )
            if self._guard.stdin is not None:
                self._guard.stdin.write(order)
                self._guard.stdin.flush()
