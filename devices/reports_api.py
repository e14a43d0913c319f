"""REST: reports of nodes from a gateway or network that is no link of ours, one or a thousand at a time."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated

from django.http import HttpRequest
from django.utils import timezone
from ninja import Router, Schema, Status
from ninja.errors import HttpError
from pydantic import Field

from devices.api import Strict
from devices.reports import MAXIMUM_REPORTS, Said, take_in
from fleet.accounts.authentication import node_keeper
from fleet.clock import Moment

router = Router(tags=["reports"])
# Clocks of gateways differ by this much at most.
AHEAD = timedelta(minutes=5)


class ReportIn(Strict):
    """`report`: the bytes of a state report or of a part of a health report (docs/wire-contract.md), in hex. `holds`: the
    whole digest of the image that the node runs, empty for none; a report of success is believed by it alone, and one
    without it decides nothing."""

    endpoint: str = Field(max_length=64, pattern=r"^[!-~]+$")
    report: str | None = Field(None, pattern=r"^([0-9a-fA-F]{2}){1,512}$")
    holds: str | None = Field(None, pattern=r"^([0-9a-f]{64})?$")
    at: Moment | None = Field(None, description="when it was heard; now, where it is left out")


class ReportsIn(Strict):
    reports: Annotated[list[ReportIn], Field(min_length=1, max_length=MAXIMUM_REPORTS)]


class ReportsOut(Schema):
    """`unknown`: endpoints that no node has; what they said is not kept."""

    taken: int
    unknown: list[str]


@router.post("", response={202: ReportsOut}, auth=node_keeper)
def take_reports(request: HttpRequest, body: ReportsIn) -> Status[dict[str, object]]:
    """Kept when this answers; workers act on them a moment later, in order. Sent twice, they do no harm."""
    now = timezone.now()
    said = [_read(number, one, now) for number, one in enumerate(body.reports)]
    unknown = take_in(said=said)
    taken = sum(one.endpoint not in unknown for one in said)
    return Status(202, {"taken": taken, "unknown": sorted(unknown)})


def _read(number: int, one: ReportIn, now: datetime) -> Said:
    if one.report is None and one.holds is None:
        raise HttpError(422, f"reports.{number}: give a report, what the node holds, or both.")
    if one.at is not None and one.at > now + AHEAD:
        raise HttpError(422, f"reports.{number}.at: {one.at.isoformat()} lies ahead; set the clock of the gateway.")
    report = None if one.report is None else bytes.fromhex(one.report)
    return Said(endpoint=one.endpoint, at=min(one.at or now, now), report=report, holds=one.holds)
