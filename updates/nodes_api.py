"""REST: many nodes at once (labels, CSV), and saved views of the node list."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Literal

from django.http import Http404, HttpRequest, HttpResponse, StreamingHttpResponse
from django.utils import timezone
from ninja import Router, Schema, Status
from ninja.errors import HttpError
from pydantic import Field

from devices.api import Id, Strict
from devices.imports import Report, check_import, import_nodes
from devices.models import Node, SavedView
from devices.node_csv import MAXIMUM_BYTES, template
from devices.relabelling import Relabelling, preview, relabel
from fleet.accounts.authentication import actor_of, node_keeper, token_of, viewer
from fleet.accounts.models import Scope, User
from fleet.problems import problem
from updates.node_export import csv_lines
from updates.node_filter import nodes_matching
from updates.saved_views import change_view, delete_view, save_view, views_of

router = Router(tags=["nodes"])
views = Router(tags=["saved views"])
CSV = {"requestBody": {"required": True, "content": {"text/csv": {"schema": {"type": "string"}}}}}
CSV_ANSWER = {"responses": {200: {"description": "OK", "content": {"text/csv": {"schema": {"type": "string"}}}}}}
Text = Annotated[str, Field(pattern=r"^[^\x00]*$")]


class RelabelIn(Strict):
    """Either a `filter` (empty: every node) or `ids`. Without `expected`, nothing is changed: the answer is a preview."""

    filter: Annotated[Text, Field(max_length=1000)] | None = None
    ids: list[Id] | None = Field(None, max_length=1000)
    set: dict[str, Text] = Field({}, max_length=32)
    remove: list[Text] = Field([], max_length=32)
    site: Annotated[Text, Field(max_length=64)] | None = None
    expected: int | None = Field(None, ge=0, le=2**31 - 1, description="`changes` of the preview")


class NodeFacts(Schema):
    labels: dict[str, object]
    site: str


class ExampleOut(Schema):
    endpoint: str
    before: NodeFacts
    after: NodeFacts


class RelabelOut(Schema):
    """`changes`: nodes that differ afterwards; `applied` says whether it was done."""

    applied: bool
    selected: int | None
    changes: int
    examples: list[ExampleOut]


class RowErrorOut(Schema):
    row: int
    column: str
    value: str
    message: str
    fix: str


class ChangeOut(Schema):
    endpoint: str
    before: dict[str, object]
    after: dict[str, object]


class ImportOut(Schema):
    """`errors` holds all that is wrong; row 1 is the header. The lists of what is created and updated are beginnings."""

    applied: bool
    rows: int
    created: int
    updated: int
    unchanged: int
    errors: list[RowErrorOut]
    first_created: list[str]
    first_updated: list[ChangeOut]


class ViewIn(Strict):
    name: str = Field(max_length=64)
    filter: Text = Field("", max_length=1000)
    shared: bool = False


class ViewPatch(Strict):
    name: str | None = Field(None, max_length=64)
    filter: Annotated[Text, Field(max_length=1000)] | None = None
    shared: bool | None = None


class ViewOut(Schema):
    id: int
    name: str
    filter: str = Field(alias="node_filter")
    shared: bool
    owner: str = Field(alias="owner.username")
    created_at: datetime


@router.post("/labels", response=RelabelOut, auth=node_keeper)
def relabel_nodes(request: HttpRequest, body: RelabelIn) -> dict[str, object]:
    """Sets and removes labels, or the site, of all nodes that a filter finds or that are listed: first as a preview.

    409 where the number of nodes that change is no longer `expected`.
    """
    change = Relabelling(put=body.set, remove=body.remove, site=body.site)
    if (body.filter is None) == (body.ids is None):
        raise HttpError(422, "filter: give either a filter or ids, and not both.")
    if body.filter is not None:
        nodes = nodes_matching(body.filter, now=timezone.now())
    else:
        nodes = Node.objects.filter(pk__in=body.ids or [])
    if body.expected is None:
        seen = preview(nodes=nodes, change=change)
        return {"applied": False, **asdict(seen)}
    selection = {"ids": body.ids} if body.filter is None else {"filter": body.filter}
    changed = relabel(nodes=nodes, change=change, expected=body.expected, selection=selection, actor=actor_of(request))
    return {"applied": True, "selected": None, "changes": changed, "examples": []}


@router.post("/import", response=ImportOut, auth=node_keeper, openapi_extra=CSV)
def import_csv(
    request: HttpRequest, dry_run: bool = False, existing: Literal["refuse", "update"] = "refuse"
) -> Report | HttpResponse:
    """Nodes as text/csv: all rows or none. A dry run stores nothing and answers with all that is wrong, by row and
    column; without it, a file with errors is a problem that holds the same `errors`.

    `existing` says what becomes of rows whose endpoint is registered. Columns that a file leaves out stay as they are.
    """
    if (request.content_type or "").startswith("multipart/"):
        fix = "Send the file itself as the body: curl --data-binary @nodes.csv."
        return problem(422, "Content-Type: multipart/form-data is not read here.", field="body", fix=fix)
    data = request.read(MAXIMUM_BYTES + 1)
    update = existing == "update"
    if dry_run:
        return check_import(data=data, update=update)
    report = import_nodes(data=data, update=update, actor=actor_of(request))
    if report.errors:
        errors = [asdict(error) for error in report.errors]
        return problem(422, str(report), field="body", errors=errors, fix="Correct them and send all rows again.")
    return report


@router.get("/import-template", auth=viewer, openapi_extra=CSV_ANSWER)
def import_template(request: HttpRequest) -> HttpResponse:
    """Header and an example row."""
    return HttpResponse(template(), content_type="text/csv; charset=utf-8")


@router.get("/export", auth=viewer, openapi_extra=CSV_ANSWER)
def export_csv(request: HttpRequest, filter: str = "") -> StreamingHttpResponse:
    """The nodes that a filter finds, streamed as CSV; an import with `existing=update` takes it back."""
    return csv_response(csv_lines(nodes_matching(filter, now=timezone.now())))


def csv_response(lines: Iterator[str]) -> StreamingHttpResponse:
    response = StreamingHttpResponse(lines, content_type="text/csv; charset=utf-8")
    response["Content-Disposition"] = f'attachment; filename="nodes-{timezone.now():%Y%m%d-%H%M}.csv"'
    return response


@views.get("", response=list[ViewOut], auth=viewer)
def list_views(request: HttpRequest) -> object:
    """Your own and the shared ones, by name."""
    return views_of(_user(request))[:500]


@views.post("", response={201: ViewOut}, auth=viewer)
def add_view(request: HttpRequest, view: ViewIn) -> Status[SavedView]:
    """Shared needs the role operator."""
    made = save_view(
        owner=_user(request),
        name=view.name,
        node_filter=view.filter,
        shared=view.shared,
        actor=actor_of(request),
        now=timezone.now(),
        may_share=_may_share(request),
    )
    return Status(201, made)


@views.patch("/{view_id}", response=ViewOut, auth=viewer)
def edit_view(request: HttpRequest, view_id: Id, view: ViewPatch) -> SavedView:
    """Your own only; what is left out stays."""
    try:
        return change_view(
            view_id=view_id,
            owner=_user(request),
            name=view.name,
            node_filter=view.filter,
            shared=view.shared,
            actor=actor_of(request),
            now=timezone.now(),
            may_share=_may_share(request),
        )
    except SavedView.DoesNotExist as error:
        raise Http404 from error


@views.delete("/{view_id}", response={204: None}, auth=viewer)
def remove_view(request: HttpRequest, view_id: Id) -> Status[None]:
    """Your own only."""
    try:
        delete_view(view_id=view_id, owner=_user(request), actor=actor_of(request))
    except SavedView.DoesNotExist as error:
        raise Http404 from error
    return Status(204, None)


def _user(request: HttpRequest) -> User:
    return token_of(request).user


def _may_share(request: HttpRequest) -> bool:
    return token_of(request).may(Scope.NODES, now=timezone.now())
