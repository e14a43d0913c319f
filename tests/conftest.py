"""What all tests share."""

from __future__ import annotations

import gc

import pytest
from hypothesis import HealthCheck, settings

from tests.stages_once import stages_run_once  # noqa: F401 - a fixture

# How fast values are made up depends on what else the machine does, and a test must not.
settings.register_profile("modelfleet", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("modelfleet")


def pytest_collection_finish(session: pytest.Session) -> None:
    """What is imported and collected stays until the end: looking for garbage in it took the tests of screens a tenth of their
    processor time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000)
