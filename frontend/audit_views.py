"""The audit log: who did what, when, to what, with before and after."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlencode

from django.http import Http404, HttpRequest, HttpResponse, StreamingHttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.http import require_GET

from fleet.accounts.models import User
from fleet.accounts.permissions import Scope
from fleet.audit import exports
from fleet.audit.models import AuditEntry
from fleet.audit.selectors import Change, changes, page
from frontend.access import demand, signed_in
from frontend.account_forms import AuditForm

PAGE = 50
# Where the subject of an entry is looked at, and the role that may.
PLACES = {
    "devices.node": ("node", Scope.READ),
    "updates.campaign": ("campaign", Scope.READ),
    "updates.modelversion": ("version", Scope.READ),
    "accounts.user": ("user", Scope.ADMIN),
}


@dataclass(frozen=True)
class Row:
    entry: AuditEntry
    changes: list[Change]
    address: str

    @property
    def kind(self) -> str:
        return self.entry.object_type.rpartition(".")[2]


def _row(entry: AuditEntry, user: User) -> Row:
    place = PLACES.get(entry.object_type)
    reachable = place is not None and entry.object_id.isdigit() and user.may(place[1].role)
    return Row(entry, changes(entry), reverse(place[0], args=[int(entry.object_id)]) if place and reachable else "")


@require_GET
@signed_in
def audit(request: HttpRequest) -> HttpResponse:
    demand(request, Scope.AUDIT.role)
    form = AuditForm(request.GET)
    readable = form.is_valid()
    before = request.GET.get("before", "")
    if before and not (before.isascii() and before.isdigit() and len(before) < 19):
        raise Http404(f"before is “{before}”; it must be the id of an entry.")
    rows = page(form.wanted(), before=int(before) if before else None, limit=PAGE + 1) if readable else []
    query = {name: value for name, value in request.GET.items() if value and name in form.fields}
    context = {
        "form": form,
        "rows": [_row(entry, request.user) for entry in rows[:PAGE]],  # type: ignore[arg-type]
        "query": urlencode(query),
        "more": len(rows) > PAGE,
        "next_before": rows[PAGE - 1].pk if len(rows) > PAGE else None,
        "first_page": not before,
        "readable": readable,
        "formats": exports.FORMATS,
    }
    return render(request, "frontend/audit.html", context, status=200 if readable else 400)


@require_GET
@signed_in
def export(request: HttpRequest, kind: str) -> StreamingHttpResponse:
    demand(request, Scope.AUDIT.role)
    form = AuditForm(request.GET)
    if kind not in exports.FORMATS or not form.is_valid():
        raise Http404(f"No export {kind} for this filter.")
    return exports.export(form.wanted(), kind=kind, actor=request.user.get_username())
