"""Fleet time: with stand-ins it may run faster than the clock on the wall, by settings.TIME_SCALE."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated

from django.conf import settings
from pydantic import AfterValidator, AwareDatetime


def in_utc(moment: datetime) -> datetime:
    """Raises ValueError where UTC has no such year. PostgreSQL refuses offsets that Python takes, such as -17:11."""
    try:
        return moment.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("use a time between the years 1 and 9999") from error


# A time with its zone, as the API takes it.
Moment = Annotated[AwareDatetime, AfterValidator(in_utc)]


def fleet_time(seconds: float) -> timedelta:
    """How long `seconds` of fleet time last on the wall."""
    return timedelta(seconds=seconds / settings.TIME_SCALE)


def fleet_seconds(lasted: timedelta) -> float:
    """How many seconds of fleet time passed while the wall saw `lasted`."""
    return float(lasted.total_seconds() * settings.TIME_SCALE)
