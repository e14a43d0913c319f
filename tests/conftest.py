"""What all tests share."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# How fast values are made up depends on what else the machine does, and a test must not.
settings.register_profile("modelfleet", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("modelfleet")
