"""REST: the audit log, read and exported by approvers and admins."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from django.http import HttpRequest, StreamingHttpResponse
from ninja import Field, Query, Router, Schema

from fleet.accounts.authentication import actor_of, auditor
from fleet.audit.exports import export
from fleet.audit.models import AuditEntry
from fleet.audit.selectors import AuditFilter, page
from fleet.clock import Moment

router = Router(tags=["audit"])
Text = Annotated[str, Field(max_length=200, pattern=r"^[^\x00]*$")]


class FilterIn(Schema):
    """actor: a user, with all their tokens. action: whole, or `campaign.` for all of a kind. subject: `devices.node` or
    `devices.node/7`. since is included, until is not; both carry their zone. text: in names and values.
    """

    actor: Text = ""
    action: Text = ""
    subject: Text = ""
    since: Moment | None = None
    until: Moment | None = None
    text: Text = ""


class EntryOut(Schema):
    id: int
    at: datetime
    actor: str
    action: str
    object_type: str
    object_id: str
    object_name: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None


class AuditOut(Schema):
    """next: what to send as `before` for the page that follows; null at the end."""

    entries: list[EntryOut]
    next: int | None


@router.get("", response=AuditOut, auth=auditor)
def list_entries(
    request: HttpRequest,
    wanted: Query[FilterIn],
    before: Annotated[int, Field(ge=1, le=2**63 - 1)] | None = None,
    limit: Annotated[int, Field(ge=1, le=500)] = 100,
) -> dict[str, object]:
    """Newest first."""
    rows: list[AuditEntry] = page(AuditFilter(**wanted.dict()), before=before, limit=limit)
    return {"entries": rows, "next": rows[-1].pk if len(rows) == limit else None}


@router.get(
    "/export.{kind}",
    auth=auditor,
    response={200: None},
    openapi_extra={
        "responses": {
            200: {
                "content": {
                    "text/csv": {"schema": {"type": "string"}},
                    "application/jsonl": {"schema": {"type": "string"}},
                }
            }
        }
    },
)
def export_entries(
    request: HttpRequest, kind: Literal["csv", "jsonl"], wanted: Query[FilterIn]
) -> StreamingHttpResponse:
    """All that the filter lets through, streamed. That it was taken is itself written down."""
    return export(AuditFilter(**wanted.dict()), kind=kind, actor=actor_of(request))
