"""What all tests share."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

from tests.stages_once import stages_run_once  # noqa: F401 - a fixture

# How fast values are made up depends on what else the machine does, and a test must not.
settings.register_profile("modelfleet", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("modelfleet")
