"""The list of nodes, and the page of one."""

from __future__ import annotations

import re
from dataclasses import asdict
from typing import Any
from urllib.parse import urlencode

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse, StreamingHttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_GET, require_POST

from devices.labels import format_labels
from devices.models import Node
from devices.paging import SORTS, TakesTheWholeFleet
from devices.query import QueryError
from devices.relabelling import describe_node
from fleet.accounts.models import Role, Scope, User
from frontend import node_list, pages, reasons
from frontend.access import demand, signed_in
from frontend.node_forms import DescribeForm, NodeFilterForm, TimelineForm
from frontend.node_list import NodeFilter
from frontend.node_page import node_page
from frontend.timeline import KINDS, read_cursor, timeline
from updates.node_export import csv_lines
from updates.node_filter import FIELDS
from updates.nodes_api import csv_response
from updates.saved_views import views_of

# How much of a filter is shown around the place of an error: it must not wrap at 390 px, or the caret would be astray.
SIGNS_BEFORE, SIGNS_AFTER = 20, 16


def wanted_by(form: NodeFilterForm) -> NodeFilter:
    """Values that are invalid do not filter; the page shows which they were."""
    form.is_valid()
    names = [name for name in asdict(NodeFilter()) if form.cleaned_data.get(name)]
    return NodeFilter(**{name: form.cleaned_data[name] for name in names})


def query_of(wanted: NodeFilter) -> str:
    return urlencode({name: "on" if value is True else value for name, value in asdict(wanted).items() if value})


def list_address(wanted: NodeFilter) -> str:
    query = query_of(wanted)
    return reverse("nodes") + (f"?{query}" if query else "")


def error_place(error: QueryError) -> dict[str, str]:
    """A piece of the filter around the error on one line, and a caret below the sign that is meant."""
    text = re.sub(r"\s", " ", error.text)
    before = text[max(0, error.position - SIGNS_BEFORE) : error.position]
    dots = "…" if error.position > SIGNS_BEFORE else ""
    after = text[error.position : error.position + SIGNS_AFTER]
    return {"before": dots + before, "after": after, "caret": " " * len(dots + before) + "^"}


@require_GET
@signed_in
def nodes(request: HttpRequest) -> HttpResponse:
    form = NodeFilterForm(request.GET)
    wanted = wanted_by(form)
    values, now = form.cleaned_data, timezone.now()
    sort, after = values.get("sort") or "", values.get("after") or 0
    rows, error, searching = list[node_list.NodeRow](), None, False
    try:
        cursor = node_list.read_cursor(after, values.get("at") if "at" in request.GET else None, sort)
        rows = node_list.node_rows(
            wanted,
            now=now,
            sort=sort,
            cursor=cursor,
            limit=node_list.PAGE + 1,
            thorough=values.get("whole_fleet") or False,
        )
    except QueryError as refusal:
        error = refusal
    except TakesTheWholeFleet:
        # No page waits for that: this one says so, and asks again for it.
        searching = True
    except ValueError as refusal:
        raise Http404(f"at is “{values['at']}”, which is no value of {sort}.") from refusal
    page, more = rows[: node_list.PAGE], len(rows) > node_list.PAGE
    query = query_of(wanted)
    views = list(views_of(user_of(request)))
    context: dict[str, Any] = {
        "form": form,
        "wanted": wanted,
        "error": error,
        "place": error_place(error) if error else None,
        "rows": page,
        "query": query,
        "sort": sort,
        "columns": {column: _column(column, sort, query) for column in SORTS},
        "first_page": after == 0,
        "next": urlencode({"sort": sort, **node_list.cursor_after(page[-1], sort)}) if more else "",
        "views": views,
        "current": next((view for view in views if _is_plain(wanted) and view.node_filter == wanted.text), None),
        "help": FIELDS,
        "search": urlencode({**request.GET.dict(), "whole_fleet": "on"}) if searching else "",
        "verdict": pages.SEARCHING
        if searching
        else pages.nodes_verdict(wanted, shown=len(page), more=more, first=after == 0, readable=error is None),
    }
    return render(request, "frontend/nodes.html", context, status=400 if error else 200)


@require_GET
@signed_in
def node_count(request: HttpRequest) -> HttpResponse:
    """How many nodes a filter finds, or where it cannot be read. Apart from the list, which never waits for it."""
    form = NodeFilterForm(request.GET)
    wanted = wanted_by(form)
    context: dict[str, Any] = {}
    try:
        context["count"] = node_list.filtered_nodes(wanted, now=timezone.now()).count()
    except QueryError as error:
        context |= {"error": error, "place": error_place(error)}
    return render(request, "frontend/parts/filter_says.html", context)


@require_GET
@signed_in
def export(request: HttpRequest) -> StreamingHttpResponse | HttpResponse:
    wanted = wanted_by(NodeFilterForm(request.GET))
    try:
        found = node_list.filtered_nodes(wanted, now=timezone.now())
    except QueryError:
        return redirect(list_address(wanted))
    return csv_response(csv_lines(found))


@require_GET
@signed_in
def node(request: HttpRequest, node_id: int) -> HttpResponse:
    return _node(request, node_id)


@require_GET
@signed_in
def node_timeline(request: HttpRequest, node_id: int) -> HttpResponse:
    """The timeline alone, for htmx."""
    kind, before = _timeline_place(request)
    try:
        found = Node.objects.get(pk=node_id)
    except Node.DoesNotExist as error:
        raise Http404(f"No node {node_id}.") from error
    page = timeline(found, kind=kind, before=before, people=_sees_people(request))
    context = {"node": found, "timeline": page, "kinds": _kinds(request), "first": before is None}
    return render(request, "frontend/parts/timeline.html", context)


@require_POST
@signed_in
def describe(request: HttpRequest, node_id: int) -> HttpResponse:
    demand(request, Role.OPERATOR)
    form = DescribeForm(request.POST)
    if not form.is_valid():
        return _node(request, node_id, form=form)
    try:
        describe_node(node_id=node_id, **form.cleaned_data, actor=request.user.get_username())
    except Node.DoesNotExist as error:
        raise Http404(f"No node {node_id}.") from error
    messages.success(request, "Labels and site are saved.")
    return redirect("node", node_id)


def _node(request: HttpRequest, node_id: int, form: DescribeForm | None = None) -> HttpResponse:
    kind, before = _timeline_place(request)
    try:
        page = node_page(node_id, now=timezone.now(), people=_sees_people(request), kind=kind, before=before)
    except Node.DoesNotExist as error:
        raise Http404(f"No node {node_id}.") from error
    facts = {"labels": format_labels(page.node.labels), "site": page.node.site}
    context = {
        "page": page,
        "node": page.node,
        "reason": reasons.why(page),
        "chain": reasons.chain(page),
        "radio": page.radio,
        "timeline": page.timeline,
        "kinds": _kinds(request),
        "first": before is None,
        "form": form or DescribeForm(initial=facts),
    }
    return render(request, "frontend/node.html", context, status=400 if form else 200)


def _timeline_place(request: HttpRequest) -> tuple[str, dict[str, int] | None]:
    form = TimelineForm(request.GET)
    if not form.is_valid():
        raise Http404(str(form.errors.as_text()))
    before = form.cleaned_data["before"]
    try:
        return form.cleaned_data["kind"], read_cursor(before) if before else None
    except ValueError as error:
        raise Http404(f"before is “{before}”, which is no place in a timeline.") from error


def _kinds(request: HttpRequest) -> dict[str, str]:
    return {kind: word for kind, word in KINDS.items() if kind != "people" or _sees_people(request)}


def _sees_people(request: HttpRequest) -> bool:
    """Whether the reader may see the audit log."""
    return user_of(request).may(Scope.AUDIT.role)


def user_of(request: HttpRequest) -> User:
    user: Any = request.user
    return user


def _is_plain(wanted: NodeFilter) -> bool:
    return wanted == NodeFilter(text=wanted.text)


def _column(column: str, sort: str, query: str) -> dict[str, str]:
    """Where the heading of a column leads, and how the list is sorted by it now."""
    down = sort == column
    order = "ascending" if down else "descending" if sort == f"-{column}" else ""
    parameters = urlencode({"sort": f"-{column}" if down else column})
    return {"address": "?" + "&".join(part for part in (query, parameters) if part), "order": order}
