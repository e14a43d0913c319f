"""The audit log as a file. Whoever takes it is written down before the first byte leaves."""

from __future__ import annotations

from dataclasses import asdict

from django.http import StreamingHttpResponse

from fleet.audit.models import AuditEntry, record
from fleet.audit.selectors import AuditFilter, as_csv, as_json_lines

FORMATS = {"csv": (as_csv, "text/csv; charset=utf-8"), "jsonl": (as_json_lines, "application/jsonl")}


def export(wanted: AuditFilter, *, kind: str, actor: str) -> StreamingHttpResponse:
    """kind is a key of FORMATS. Streamed newest first, in memory that does not grow with the log."""
    lines, content_type = FORMATS[kind]
    asked = {name: str(value) for name, value in asdict(wanted).items() if value}
    record(actor=actor, action="audit.exported", subject=AuditEntry(), after={"format": kind, "filter": asked})
    response = StreamingHttpResponse(lines(wanted), content_type=content_type)
    response["Content-Disposition"] = f'attachment; filename="audit.{kind}"'
    return response
