"""Durations of web requests, over all processes of this web server.

Each process counts in a memory-mapped file of its own, and a scrape of any of them adds the files up.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.multiprocess import MultiProcessCollector

from fleet.operations.multiprocess import make_directory

_DIRECTORY = make_directory()
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
    MultiProcessCollector(registry, path=str(_DIRECTORY))
