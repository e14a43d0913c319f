"""Fleet time: with stand-ins it may run faster than the clock on the wall, by settings.TIME_SCALE."""

from __future__ import annotations

from datetime import timedelta

from django.conf import settings


def fleet_time(seconds: float) -> timedelta:
    """How long `seconds` of fleet time last on the wall."""
    return timedelta(seconds=seconds / settings.TIME_SCALE)


def fleet_seconds(lasted: timedelta) -> float:
    """How many seconds of fleet time passed while the wall saw `lasted`."""
    return float(lasted.total_seconds() * settings.TIME_SCALE)
