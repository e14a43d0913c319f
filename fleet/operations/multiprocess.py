"""Where the web processes of this machine count together, by prometheus-client's multiprocess mode."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from django.conf import settings

from fleet.embedded.paths import start_ticks

VARIABLE = "PROMETHEUS_MULTIPROC_DIR"


def name_directory() -> None:
    """Before anybody imports prometheus-client, which looks for the variable once."""
    os.environ[VARIABLE] = str(settings.VAR_DIR / "metrics" / f"{os.getppid()}-{start_ticks(os.getppid())}")


def make_directory() -> Path:
    """One for all processes of a web server, which share a parent; those of servers that have ended are removed.

    So a server that starts again counts from nothing, which Prometheus understands, and files do not pile up.
    """
    made = Path(os.environ[VARIABLE])
    made.mkdir(parents=True, exist_ok=True)
    for other in made.parent.iterdir():
        pid, _, ticks = other.name.partition("-")
        if pid.isdigit() and str(start_ticks(int(pid))) != ticks:
            shutil.rmtree(other, ignore_errors=True)  # another process may be faster
    return made
