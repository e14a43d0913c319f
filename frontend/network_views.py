"""ChirpStack servers: what they are, what the last check found, and the buttons that set them right."""

from __future__ import annotations

from typing import Any

from django import forms
from django.conf import settings
from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from devices.links.lorawan.checking import check
from devices.links.lorawan.chirpstack import ChirpStackError
from devices.links.lorawan.discovery import discover
from devices.links.lorawan.models import REGION_CHOICES, EventEncoding, LoRaWanDevice, NetworkServer
from devices.links.lorawan.servers import add_server, change_server, remove_server, set_up
from devices.registration import RegistrationRefused
from fleet.accounts.models import Role
from frontend.access import demand, signed_in
from frontend.forms import StyledForm
from frontend.pages import Verdict, add_refusal, plural

SERVERS_MAX = 100


class ServerForm(StyledForm):
    name = forms.SlugField(max_length=64, help_text="Letters, digits and hyphens.")
    target = forms.CharField(label="gRPC API", max_length=255, help_text="host:port, for example chirpstack:8080.")
    tls = forms.BooleanField(label="TLS", required=False, help_text="Tick where a proxy terminates TLS.")
    token = forms.CharField(
        label="API key",
        required=False,
        widget=forms.PasswordInput(attrs={"autocomplete": "off"}),
        help_text="Shown once by ChirpStack. It is kept sealed and never shown here; empty keeps the one that is there.",
    )
    tenant_id = forms.CharField(
        label="Tenant id", required=False, max_length=36, help_text="The tenant's UUID; needed with a tenant's key."
    )
    region = forms.ChoiceField(choices=REGION_CHOICES, help_text="For devices whose profile names none.")
    event_base_url = forms.URLField(
        label="Address of this server", assume_scheme="https", help_text="As ChirpStack reaches it."
    )
    event_encoding = forms.ChoiceField(label="Events as", choices=EventEncoding.choices)


@require_GET
@signed_in
def servers(request: HttpRequest) -> HttpResponse:
    found = list(NetworkServer.objects.order_by("name")[:SERVERS_MAX])
    context = {"servers": found, "verdict": _verdict(found), "may_keep": _may_keep(request)}
    return render(request, "frontend/servers.html", context)


def _may_keep(request: HttpRequest) -> bool:
    user: Any = request.user
    return bool(user.may(Role.ADMIN))


def _verdict(found: list[NetworkServer]) -> Verdict:
    if not found:
        return Verdict(
            "is-planned",
            "s-planned",
            "No network server is known yet, so no LoRaWAN node is reached.",
            "Add a ChirpStack with its API key; the rest is set up from here.",
        )
    broken = [server.name for server in found if any(finding["level"] == "problem" for finding in server.findings)]
    if broken:
        return Verdict("is-failed", "s-failed", f"Not reached: {', '.join(broken)}.", "What to do stands below.")
    unchecked = [server.name for server in found if server.checked_at is None]
    if unchecked:
        return Verdict("is-held", "s-tight", f"Not checked yet: {', '.join(unchecked)}.", "Check the connection.")
    if any(finding["level"] == "warning" for server in found for finding in server.findings):
        return Verdict("is-held", "s-tight", "Connected, and something wants attention.", "It stands below.")
    return Verdict("is-confirmed", "s-confirmed", f"{plural(len(found), 'network server')} checked: all in order.")


@require_http_methods(["GET", "POST"])
@signed_in
def edit(request: HttpRequest, server_id: int | None = None) -> HttpResponse:
    demand(request, Role.ADMIN)
    server = None if server_id is None else get_object_or_404(NetworkServer, pk=server_id)
    initial = {"event_base_url": settings.PUBLIC_URL}
    if server is not None:
        initial = {name: getattr(server, name) for name in ServerForm.base_fields if name != "token"}
    form = ServerForm(request.POST or None, initial=initial)
    if request.method == "POST" and form.is_valid():
        actor = request.user.get_username()
        try:
            if server is None:
                add_server(actor=actor, **form.cleaned_data)
            else:
                change_server(server_id=server.pk, actor=actor, **form.cleaned_data)
        except RegistrationRefused as refusal:
            for error in refusal.errors:
                add_refusal(form, error["field"], error["message"])
        else:
            return redirect("servers")
    status = 400 if form.is_bound and form.errors else 200
    nodes = 0 if server is None else LoRaWanDevice.objects.filter(server=server).count()
    context = {"form": form, "server": server, "nodes": nodes}
    return render(request, "frontend/server_edit.html", context, status=status)


@require_POST
@signed_in
def act(request: HttpRequest, server_id: int, action: str) -> HttpResponse:
    """check, set-up, discover or remove; what came of it stands on the page that follows."""
    roles = {"check": Role.OPERATOR, "set-up": Role.ADMIN, "discover": Role.ADMIN, "remove": Role.ADMIN}
    if action not in roles:
        raise Http404(f"No action {action}.")
    demand(request, roles[action])
    server = get_object_or_404(NetworkServer, pk=server_id)
    actor = request.user.get_username()
    if action == "remove":
        remove_server(server_id=server.pk, actor=actor)
        messages.success(request, f"{server.name} is removed.")
        return redirect("servers")
    try:
        if action == "set-up":
            set_up(server_id=server.pk, actor=actor)
        elif action == "discover":
            found = discover(server_id=server.pk, actor=actor)
            messages.success(
                request,
                f"{server.name}: {plural(found.devices, 'device')}, {found.registered:,} registered, "
                f"{found.known:,} known already, {found.incomplete:,} lack tags: see the unknown endpoints.",
            )
        check(server_id=server.pk)
    except ChirpStackError as error:
        messages.error(request, str(error))
    return redirect("servers")
