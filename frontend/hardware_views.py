"""Hardware profiles, firmware builds, and registering one node: what must be here before anything can be sent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_GET, require_http_methods

from devices import selectors
from devices.registration import RegistrationRefused, create_firmware_build, create_profile, register_nodes
from fleet.accounts.models import Scope
from frontend.access import demand, signed_in
from frontend.forms import StyledForm
from frontend.hardware_forms import FirmwareBuildForm, NodeForm, ProfileForm
from frontend.pages import Verdict, add_refusal, key, plural

PAGE = 50


@require_GET
@signed_in
def hardware(request: HttpRequest) -> HttpResponse:
    profiles = list(selectors.profiles_with_nodes(after=request.GET.get("after", ""), limit=PAGE + 1))
    builds = list(selectors.firmware_builds_with_nodes(after=request.GET.get("after_build", ""), limit=PAGE + 1))
    context = {
        "profiles": profiles[:PAGE],
        "next_profile": profiles[PAGE - 1].name if len(profiles) > PAGE else "",
        "builds": builds[:PAGE],
        "next_build": builds[PAGE - 1].name if len(builds) > PAGE else "",
        "verdict": _verdict(len(profiles), len(builds)),
    }
    return render(request, "frontend/hardware.html", context)


def _verdict(profiles: int, builds: int) -> Verdict:
    if not profiles or not builds:
        lacking = " and no ".join(
            word for word, count in (("hardware profile", profiles), ("firmware build", builds)) if not count
        )
        return Verdict(
            "is-planned",
            "s-planned",
            f"There is no {lacking} yet, so no version can be judged and no node updated.",
            "A profile says what a version must fit into, a firmware build what its agent takes.",
        )
    some = f"{plural(profiles, 'hardware profile')} and {plural(builds, 'firmware build')}"
    over = profiles > PAGE or builds > PAGE
    return Verdict("is-none", "i-node", "What nodes are made of." if over else f"{some} are known.")


@require_http_methods(["GET", "POST"])
@signed_in
def new_profile(request: HttpRequest) -> HttpResponse:
    words = "Describe a class of hardware.", "What a version must fit into: it is judged on each profile."
    return _new(request, ProfileForm(request.POST or None), create_profile, *words)


@require_http_methods(["GET", "POST"])
@signed_in
def new_firmware_build(request: HttpRequest) -> HttpResponse:
    words = "Describe a firmware build.", "What its agent takes: only bundles of its class are sent to its nodes."
    return _new(request, FirmwareBuildForm(request.POST or None), create_firmware_build, *words)


def _new(request: HttpRequest, form: StyledForm, create: Callable[..., Any], sentence: str, rest: str) -> HttpResponse:
    demand(request, Scope.NODES.role)
    made = _save(form, lambda: create(actor=request.user.get_username(), **form.cleaned_data))
    if made:
        messages.success(request, f"{made} is known now.")
        return redirect("hardware")
    return _page(request, form, sentence, rest, where="hardware")


@require_GET
@signed_in
def unknown(request: HttpRequest) -> HttpResponse:
    """Who spoke and is not registered, the latest to appear first."""
    before = key(request, "before")
    found = selectors.unknown_endpoints().order_by("-pk")
    rows = list((found.filter(pk__lt=before) if before else found)[: PAGE + 1])
    context = {
        "rows": rows[:PAGE],
        "before": rows[PAGE - 1].pk if len(rows) > PAGE else None,
        "verdict": _unknown_verdict(found.count()),
    }
    return render(request, "frontend/unknown.html", context)


def _unknown_verdict(count: int) -> Verdict:
    if not count:
        rest = "An endpoint that is not is refused, and would be listed here."
        return Verdict("is-confirmed", "s-confirmed", "Everyone who speaks is registered.", rest)
    words = f"{plural(count, 'endpoint')} spoke or {'is' if count == 1 else 'are'} known to a ChirpStack, and not here."
    return Verdict("is-held", "s-inconclusive", words, "They are refused until they are registered.")


@require_http_methods(["GET", "POST"])
@signed_in
def new_node(request: HttpRequest) -> HttpResponse:
    """`endpoint` and `link` in the address fill the form, for those that knocked."""
    demand(request, Scope.NODES.role)
    given = {name: request.GET.get(name, "") for name in ("endpoint", "link")}
    form = NodeForm(request.POST or None, initial=given)
    row = lambda: {**form.cleaned_data, "profile": str(form.cleaned_data["profile"])}  # noqa: E731
    done = _save(form, lambda: register_nodes(rows=[row()], actor=request.user.get_username())[0])
    if done:
        return redirect("node", done.pk)
    words = "Register one node.", "Many at once come by a CSV file, the API, or discovery from a ChirpStack."
    return _page(request, form, *words, where="nodes")


def _save(form: StyledForm, make: Callable[[], Any]) -> Any:
    """What was made; None where there is nothing to make, or what is wrong stands in the form."""
    if not form.is_bound or not form.is_valid():
        return None
    try:
        return make()
    except RegistrationRefused as refusal:
        for error in refusal.errors:
            # Of a node, fields begin with the number of its row.
            add_refusal(form, error["field"].removeprefix("0."), error["message"])
        return None


def _page(request: HttpRequest, form: StyledForm, sentence: str, rest: str, *, where: str) -> HttpResponse:
    context = {"form": form, "verdict": Verdict("is-none", "i-node", sentence, rest), "where": where}
    status = 400 if form.is_bound else 200
    return render(request, "frontend/hardware_new.html", context, status=status)
