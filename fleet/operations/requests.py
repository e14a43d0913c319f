"""Durations of web requests, over all processes of this machine.

prometheus-client's multiprocess mode: each process counts in a memory-mapped file of its own, and a scrape of any of them
adds the files up. Its directory must be named before the library is imported.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from django.conf import settings

from fleet.embedded.paths import start_ticks


def _directory(parent: Path) -> Path:
    """One for all processes of a web server, which share a parent; those of servers that have ended are removed.

    So a server that starts again counts from nothing, which Prometheus understands, and files do not pile up.
    """
    parent.mkdir(parents=True, exist_ok=True)
    for other in parent.iterdir():
        pid, _, ticks = other.name.partition("-")
        if pid.isdigit() and str(start_ticks(int(pid))) != ticks:
            shutil.rmtree(other, ignore_errors=True)  # another process may be faster
    made = parent / f"{os.getppid()}-{start_ticks(os.getppid())}"
    made.mkdir(exist_ok=True)
    return made


DIRECTORY = _directory(settings.VAR_DIR / "metrics")
os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(DIRECTORY)

from prometheus_client import CollectorRegistry, Histogram  # noqa: E402 - the directory comes first
from prometheus_client.multiprocess import MultiProcessCollector  # noqa: E402

# In a registry that nobody serves: what is served is the sum of the files.
_DURATION = Histogram(
    "modelfleet_web_request_duration_seconds",
    "Time to answer a web request, by view name and status.",
    ["view", "status"],
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
    registry=CollectorRegistry(),
)


def observe_request(*, view: str, status: int, seconds: float) -> None:
    _DURATION.labels(view, str(status)).observe(seconds)


def register_requests(registry: CollectorRegistry) -> None:
    """Serves the sum over all processes, those that have ended included."""
    MultiProcessCollector(registry, path=str(DIRECTORY))  # type: ignore[no-untyped-call]
