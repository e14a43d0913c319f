"""Many nodes at once: labels, import, and saved views of the list."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.contrib import messages
from django.core import signing
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from devices import node_csv
from devices.imports import Report, check_import, import_nodes
from devices.labels import LabelError
from devices.models import Node, SavedView
from devices.query import QueryError
from devices.relabelling import SelectionChanged, preview, relabel
from fleet.accounts.models import Role
from frontend import pages
from frontend.access import demand, signed_in
from frontend.node_forms import ImportForm, RelabelForm, SelectionForm, ViewForm
from frontend.node_list import NodeFilter, filtered_nodes
from frontend.node_views import list_address, query_of, user_of, wanted_by
from updates.saved_views import ViewRefused, change_view, delete_view, may_share, save_view

# A previewed file waits in the page itself, signed: nothing of it is stored before it is applied.
SALT = "nodes.import"
PREVIEW_LIVES_S = 3600
ERRORS_SHOWN = 1000


@require_http_methods(["GET", "POST"])
@signed_in
def relabel_nodes(request: HttpRequest) -> HttpResponse:
    """A form, then its preview, then the change: the number that was previewed must still hold."""
    demand(request, Role.OPERATOR)
    selection = _Selection(request)
    form = RelabelForm(request.POST if request.method == "POST" else None)
    context: dict[str, Any] = {"form": form, "selection": selection}
    try:
        found = selection.nodes()
        if form.is_valid():
            change, expected = form.cleaned_data["change"], form.cleaned_data["expected"]
            if "confirm" in request.POST and expected is not None:
                try:
                    return _relabelled(request, selection, form, found)
                except SelectionChanged as refusal:
                    context["changed"] = refusal
            context["preview"] = preview(nodes=found, change=change)
    except QueryError as error:
        form.add_error(None, str(error)) if form.is_bound else messages.error(request, str(error))
    except LabelError as error:
        form.add_error("put", str(error))
    context["verdict"] = pages.relabel_verdict(context.get("preview"), selection.words)
    status = 409 if "changed" in context else 400 if form.is_bound and form.errors else 200
    return render(request, "frontend/relabel.html", context, status=status)


def _relabelled(request: HttpRequest, selection: _Selection, form: RelabelForm, found: QuerySet[Node]) -> HttpResponse:
    changed = relabel(
        nodes=found,
        change=form.cleaned_data["change"],
        expected=form.cleaned_data["expected"],
        selection=selection.facts,
        actor=request.user.get_username(),
    )
    messages.success(request, f"{pages.plural(changed, 'node')} changed.")
    return redirect(selection.back)


class _Selection:
    """What the list sent: ticked rows, or all that its filter finds."""

    def __init__(self, request: HttpRequest) -> None:
        sent = request.POST if request.method == "POST" else request.GET
        ids = sent.getlist("ids")
        form = SelectionForm(sent)
        form.fields["ids"].choices = [(one, one) for one in ids if one.isascii() and one.isdigit() and len(one) < 19]  # type: ignore[attr-defined]
        self.wanted = wanted_by(form)
        self.which: str = form.cleaned_data.get("which") or "ticked"
        self.ids: list[int] = form.cleaned_data.get("ids") or []

    def nodes(self) -> QuerySet[Node]:
        """Raises QueryError."""
        if self.which == "ticked":
            return Node.objects.filter(pk__in=self.ids)
        return filtered_nodes(self.wanted, now=timezone.now())

    @property
    def facts(self) -> dict[str, Any]:
        """As the audit log keeps it."""
        if self.which == "ticked":
            return {"ids": self.ids}
        wanted = self.wanted
        more = {"campaign": wanted.campaign, "state": wanted.state, "silent": wanted.silent}
        return {"filter": wanted.text} | {name: value for name, value in more.items() if value}

    @property
    def words(self) -> str:
        if self.which == "ticked":
            return pages.plural(len(self.ids), "ticked node")
        return "every node that the filter finds" if query_of(self.wanted) else "every node"

    @property
    def back(self) -> str:
        return list_address(self.wanted)


@require_http_methods(["GET", "POST"])
@signed_in
def import_csv(request: HttpRequest) -> HttpResponse:
    """Upload, dry run with everything that is wrong, then all of it or nothing."""
    demand(request, Role.OPERATOR)
    if request.method == "POST" and "file_again" in request.POST:
        return _apply(request)
    form = ImportForm(request.POST or None, request.FILES or None)
    context: dict[str, Any] = {"form": form}
    if request.method == "POST" and form.is_valid():
        update = form.cleaned_data["update"]
        context |= _dry_run(form.cleaned_data["file"].read(), update=update)
    return _import_page(request, context)


def _dry_run(data: bytes, *, update: bool) -> dict[str, Any]:
    report = check_import(data=data, update=update)
    if report.errors:
        return {"report": report}
    sealed = signing.dumps([data.decode("utf-8-sig"), update, report.counts()], salt=SALT, compress=True)
    if len(sealed) > settings.DATA_UPLOAD_MAX_MEMORY_SIZE * 3 // 4:
        return {"report": report, "too_large": True}
    return {"report": report, "sealed": sealed}


def _apply(request: HttpRequest) -> HttpResponse:
    try:
        text, update, counts = signing.loads(request.POST["file_again"], salt=SALT, max_age=PREVIEW_LIVES_S)
    except signing.BadSignature:
        form = ImportForm({}, {})
        form.full_clean()
        form.errors.clear()
        form.add_error("file", "The preview is older than an hour or was changed. Choose the file again.")
        return _import_page(request, {"form": form})
    data = text.encode()
    # The file is the same; what is registered may not be: another outcome than the previewed one is shown first.
    if check_import(data=data, update=update).counts() != counts:
        return _import_page(request, {"form": ImportForm(), "changed": True, **_dry_run(data, update=update)})
    report = import_nodes(data=data, update=update, actor=request.user.get_username())
    if report.errors:
        return _import_page(request, {"form": ImportForm(), "changed": True, "report": report})
    done = f"{pages.plural(report.created, 'node')} registered, {report.updated:,} updated, {report.unchanged:,} unchanged."
    messages.success(request, done)
    return redirect("nodes")


def _import_page(request: HttpRequest, context: dict[str, Any]) -> HttpResponse:
    report: Report | None = context.get("report")
    context |= {
        "columns": node_csv.COLUMNS,
        "verdict": pages.import_verdict(report),
        "errors": report.errors[:ERRORS_SHOWN] if report else [],
        "more_errors": max(0, len(report.errors) - ERRORS_SHOWN) if report else 0,
    }
    bad = context["form"].errors or (report and report.errors)
    return render(request, "frontend/nodes_import.html", context, status=400 if bad else 200)


@require_GET
@signed_in
def import_template(request: HttpRequest) -> HttpResponse:
    response = HttpResponse(node_csv.template(), content_type="text/csv; charset=utf-8")
    response["Content-Disposition"] = 'attachment; filename="nodes-template.csv"'
    return response


@require_POST
@signed_in
def save(request: HttpRequest) -> HttpResponse:
    """A view of the list as it is filtered now."""
    form = ViewForm(request.POST)
    owner = user_of(request)
    if not form.is_valid():
        wrong = (f"{field}: {' '.join(str(error) for error in errors)}" for field, errors in form.errors.items())
        messages.error(request, "; ".join(wrong))
        return redirect("nodes")
    try:
        view = save_view(
            owner=owner,
            **form.cleaned_data,
            actor=owner.get_username(),
            now=timezone.now(),
            may_share=may_share(owner),
        )
    except (ViewRefused, QueryError) as refusal:
        return _refused(request, refusal, form.cleaned_data["node_filter"])
    return _to_view(view)


@require_POST
@signed_in
def change(request: HttpRequest, view_id: int) -> HttpResponse:
    form = ViewForm(request.POST)
    owner = user_of(request)
    if not form.is_valid():
        raise Http404(form.errors.as_text())
    try:
        view = change_view(
            view_id=view_id,
            owner=owner,
            name=form.cleaned_data["name"],
            shared=form.cleaned_data["shared"],
            actor=owner.get_username(),
            now=timezone.now(),
            may_share=may_share(owner),
        )
    except SavedView.DoesNotExist as error:
        raise Http404(f"You have no view {view_id}.") from error
    except ViewRefused as refusal:
        return _refused(request, refusal, form.cleaned_data["node_filter"])
    return _to_view(view)


@require_POST
@signed_in
def delete(request: HttpRequest, view_id: int) -> HttpResponse:
    try:
        delete_view(view_id=view_id, owner=user_of(request), actor=request.user.get_username())
    except SavedView.DoesNotExist as error:
        raise Http404(f"You have no view {view_id}.") from error
    messages.success(request, "The view is deleted. No node has changed.")
    return redirect("nodes")


def _refused(request: HttpRequest, refusal: ViewRefused | QueryError, text: str) -> HttpResponse:
    messages.error(request, f"{pages.as_sentence(refusal.message)} {pages.as_sentence(refusal.fix)}")
    return redirect(list_address(NodeFilter(text=text)))


def _to_view(view: SavedView) -> HttpResponse:
    return redirect(list_address(NodeFilter(text=view.node_filter)))
