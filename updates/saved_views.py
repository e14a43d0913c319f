"""Filters of nodes under a name. A view belongs to who made it; operators and those above may share theirs."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.db import IntegrityError, transaction
from django.db.models import Q, QuerySet

from devices.models import SavedView
from fleet.accounts.models import Role, User
from fleet.audit.models import record
from updates.node_filter import nodes_matching

MAXIMUM_VIEWS = 100


class ViewRefused(ValueError):
    """A view that cannot be kept so."""

    def __init__(self, field: str, message: str, fix: str) -> None:
        super().__init__(field, message, fix)
        self.field, self.message, self.fix = field, message, fix

    def __str__(self) -> str:
        return f"{self.field}: {self.message}."


def views_of(user: User) -> QuerySet[SavedView]:
    """Their own and the shared ones, by name; with the owner."""
    return SavedView.objects.filter(Q(owner=user) | Q(shared=True)).select_related("owner").order_by("name", "id")


@transaction.atomic
def save_view(
    *, owner: User, name: str, node_filter: str, shared: bool, actor: str, now: datetime, may_share: bool
) -> SavedView:
    """A new view. Raises ViewRefused, and QueryError where the filter cannot be read."""
    nodes_matching(node_filter, now=now)
    _check(name, shared, may_share)
    if SavedView.objects.filter(owner=owner).count() >= MAXIMUM_VIEWS:
        raise ViewRefused("name", f"you have {MAXIMUM_VIEWS} views", "delete one that you no longer use")
    view = SavedView(owner=owner, name=name.strip(), node_filter=node_filter, shared=shared)
    _store(view)
    record(actor=actor, action="view.saved", subject=view, after=_facts(view))
    return view


@transaction.atomic
def change_view(
    *,
    view_id: int,
    owner: User,
    actor: str,
    now: datetime,
    may_share: bool,
    name: str | None = None,
    node_filter: str | None = None,
    shared: bool | None = None,
) -> SavedView:
    """Changes what is given of one's own view. Raises SavedView.DoesNotExist, ViewRefused and QueryError."""
    view = SavedView.objects.select_for_update(of=("self",)).get(pk=view_id, owner=owner)
    before = _facts(view)
    if node_filter is not None:
        nodes_matching(node_filter, now=now)
        view.node_filter = node_filter
    if name is not None:
        view.name = name.strip()
    if shared is not None:
        view.shared = shared
    _check(view.name, view.shared, may_share)
    if before != _facts(view):
        _store(view)
        record(actor=actor, action="view.changed", subject=view, before=before, after=_facts(view))
    return view


@transaction.atomic
def delete_view(*, view_id: int, owner: User, actor: str) -> None:
    """One's own. Raises SavedView.DoesNotExist."""
    view = SavedView.objects.select_for_update(of=("self",)).get(pk=view_id, owner=owner)
    record(actor=actor, action="view.deleted", subject=view, before=_facts(view))
    view.delete()


def may_share(role_holder: User) -> bool:
    return role_holder.may(Role.OPERATOR)


def _check(name: str, shared: bool, may_share: bool) -> None:
    if not name.strip():
        raise ViewRefused("name", "the name is empty", "give the view a name")
    if len(name) > 64:
        raise ViewRefused("name", f"the name has {len(name)} signs", "write at most 64")
    if any(not sign.isprintable() for sign in name):
        raise ViewRefused("name", f"{name!r} holds a sign that cannot be shown", "leave it out")
    if shared and not may_share:
        raise ViewRefused("shared", "sharing needs the role operator", "keep the view private")


def _store(view: SavedView) -> None:
    try:
        with transaction.atomic():
            view.save()
    except IntegrityError as error:
        raise ViewRefused("name", f"you have a view “{view.name}” already", "choose another name") from error


def _facts(view: SavedView) -> dict[str, Any]:
    return {"name": view.name, "filter": view.node_filter, "shared": view.shared}
