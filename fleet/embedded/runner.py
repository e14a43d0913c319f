"""One supervised process: a thread that starts it, copies its log, and starts it again when it crashes."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from fleet.embedded.guard import signal_group

if TYPE_CHECKING:
    from fleet.embedded.supervisor import Process

FIRST_BACKOFF_S = 0.1
LONGEST_BACKOFF_S = 10.0
STEADY_S = 30.0  # a life as long as this makes the next crash a first one again
LOG_LIMIT_BYTES = 10_000_000


class LogFile:
    """Appends lines with a UTC time and the name of the process; keeps one older file of `LOG_LIMIT_BYTES`."""

    def __init__(self, path: Path, name: str, echo: Callable[[str], None] | None) -> None:
        self._path = path
        self._name = name
        self._echo = echo
        self._rest = b""

    def feed(self, data: bytes) -> None:
        """Take the next bytes of output; whole lines are written at once."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self.line(line.decode(errors="replace"))

    def finish(self) -> None:
        """Write a last line that had no end."""
        if self._rest:
            self.feed(b"\n")

    def line(self, text: str) -> None:
        if self._path.exists() and self._path.stat().st_size > LOG_LIMIT_BYTES:
            self._path.replace(self._path.with_suffix(".log.1"))
        with self._path.open("a") as file:
            file.write(f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} {self._name} | {text}\n")
        if self._echo is not None:
            self._echo(f"{self._name} | {text}")

    def tail(self, lines: int = 15) -> str:
        """The last lines of the log, for error messages."""
        if not self._path.exists():
            return "(empty)"
        return "\n".join(self._path.read_text(errors="replace").splitlines()[-lines:])


class Runner:
    """Keeps one `Process` running between `start` and `stop`."""

    def __init__(
        self,
        process: Process,
        log: Path,
        say: Callable[[str], None],
        echo: Callable[[str], None] | None,
        tell_guard: Callable[[str], None],
    ) -> None:
        self.log = LogFile(log, process.name, echo)
        self._process = process
        self._say = say
        self._tell_guard = tell_guard
        self._stopping = threading.Event()
        self._lock = threading.Lock()  # held while the child is started, signalled or reaped: its pid is then our own
        self._child: subprocess.Popen[bytes] | None = None
        # The kernel sends PR_SET_PDEATHSIG when the *thread* that started the child ends, so this thread stays.
        self._thread = threading.Thread(target=self._keep_running, name=f"run {process.name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End the process by its stop signal, and its group by SIGKILL after the grace; return when it is gone."""
        self._stopping.set()
        self.kill(self._process.stop_signal)
        self._thread.join(self._process.stop_within_s)
        if self._thread.is_alive():
            self._say(f"{self._process.name} did not stop within {self._process.stop_within_s:g} s; killing it")
            with self._lock:
                if self._child is not None:
                    signal_group(self._child.pid, signal.SIGKILL)
            self._thread.join()

    def kill(self, number: signal.Signals) -> None:
        with self._lock:
            if self._child is not None:
                os.kill(self._child.pid, number)

    def pid(self) -> int | None:
        with self._lock:
            return None if self._child is None else self._child.pid

    def is_ready(self) -> bool:
        return self.pid() is not None and (self._process.ready is None or self._process.ready())

    def _keep_running(self) -> None:
        backoff_s = FIRST_BACKOFF_S
        while not self._stopping.is_set():
            started = time.monotonic()
            end = self._live_once()
            if self._stopping.is_set():
                return
            if time.monotonic() - started > STEADY_S:
                backoff_s = FIRST_BACKOFF_S
            self._say(f"{self._process.name} ended ({end}); starting it again in {backoff_s:g} s")
            self.log.line(f"-- ended ({end}) --")
            self._stopping.wait(backoff_s)
            backoff_s = min(2 * backoff_s, LONGEST_BACKOFF_S)

    def _live_once(self) -> str:
        """Start the child, copy its output until it ends, and say how it ended."""
        process = self._process
        try:
            if process.prepare is not None:
                process.prepare()
            with self._lock:
                if self._stopping.is_set():
                    return "stopped"
                child = self._child = subprocess.Popen(
                    ["setpriv", "--pdeathsig", process.stop_signal.name.removeprefix("SIG"), "--", *process.command],
                    env={**os.environ, **(process.environment or {})},
                    cwd=process.directory,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
        except (OSError, RuntimeError) as error:
            return f"could not be started: {error}"
        self._tell_guard(f"+{child.pid} {process.stop_signal.value} {process.stop_within_s}\n")
        self._copy_output(child)
        with self._lock:
            # The rest of the group; its number is ours until the child is reaped.
            signal_group(child.pid, signal.SIGKILL)
            code = child.wait()
            self._child = None
        self._tell_guard(f"-{child.pid}\n")
        return f"exit code {code}" if code >= 0 else signal.Signals(-code).name

    def _copy_output(self, child: subprocess.Popen[bytes]) -> None:
        """Copy until the child itself has ended, even if a grandchild holds the pipe open."""
        if child.stdout is None:
            raise TypeError("the child must be started with a pipe as its standard output")
        ended = os.pidfd_open(child.pid)
        pipe = child.stdout.fileno()
        os.set_blocking(pipe, False)
        with child.stdout, selectors.DefaultSelector() as selector:
            selector.register(pipe, selectors.EVENT_READ)
            selector.register(ended, selectors.EVENT_READ)
            while True:
                readable = {key.fd for key, _ in selector.select()}
                if pipe in readable:
                    data = os.read(pipe, 65536)
                    if data:
                        self.log.feed(data)
                        continue
                    selector.unregister(pipe)
                if ended in readable:
                    break
        os.close(ended)
        self.log.finish()
