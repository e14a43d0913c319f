"""Every address of the dashboard: axe-core finds nothing serious in both themes, and no page is wider than its window.

An address without a case here fails the test of its name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from django.urls import URLPattern, URLResolver, get_resolver, reverse
from playwright.sync_api import Page

from devices.links.lorawan.models import NetworkServer
from fleet.accounts.models import Role, User
from fleet.audit.models import record
from fleet.blobs.models import store
from tests import factories
from tests.browser.visitor import NARROW, WIDE, Visitor, overflow
from tests.integration.devices.tiny_model import tiny_model
from tests.integration.frontend.conftest import Fleet

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

# Pages of each address: arguments of `reverse` made from the fleet, or a query after "?".
Case = Callable[[Fleet], list[Any]]
PAGES: dict[str, Case] = {
    "fleet": lambda fleet: [()],
    "status": lambda fleet: [()],
    "attention": lambda fleet: [()],
    "nodes": lambda fleet: [(), "?text=site:plant-3 colour:red", "?text=site:nowhere"],
    "nodes-import": lambda fleet: [()],
    "nodes-relabel": lambda fleet: [f"?ticked={fleet.nodes['planned'].pk}"],
    "node": lambda fleet: [(fleet.nodes[state].pk,) for state in ("skipped", "confirmed", "transferring")],
    "nodes-unknown": lambda fleet: [()],
    "node-new": lambda fleet: [()],
    "hardware": lambda fleet: [()],
    "hardware-profile-new": lambda fleet: [()],
    "hardware-firmware-new": lambda fleet: [()],
    "versions": lambda fleet: [()],
    "version-upload": lambda fleet: [()],
    "version-compare": lambda fleet: [f"?v={fleet.version.pk - 1}&v={fleet.version.pk}"],
    "version": lambda fleet: [(one.pk,) for one in (fleet.version, fleet.refused, fleet.building)],
    "version-dossier": lambda fleet: [(one.pk,) for one in (fleet.version, fleet.refused)],
    "version-memory": lambda fleet: [(fleet.version.pk,)],
    "patches": lambda fleet: [()],
    "servers": lambda fleet: [()],
    "server-new": lambda fleet: [()],
    "server-edit": lambda fleet: [(NetworkServer.objects.get().pk,)],
    "campaigns": lambda fleet: [()],
    "campaign-new": lambda fleet: [(), f"?version={fleet.version.pk}"],
    "campaign": lambda fleet: [(fleet.campaign.pk,)],
    "campaign-plan": lambda fleet: [(fleet.draft.pk,), (fleet.campaign.pk,)],
    "campaign-action": lambda fleet: [
        (fleet.draft.pk, "launch"),
        (fleet.draft.pk, "abort"),
        (fleet.campaign.pk, "roll-back"),
    ],
    "login": lambda fleet: [()],
    "account": lambda fleet: [()],
    "tokens": lambda fleet: [()],
    "users": lambda fleet: [()],
    "user-new": lambda fleet: [()],
    "roles": lambda fleet: [()],
    "user": lambda fleet: [(User.objects.earliest("pk").pk,)],
    "audit": lambda fleet: [()],
}
# Answers to a click, parts of a page, files.
NO_PAGES = {
    *("node-count", "nodes-export", "nodes-import-template", "node-view-save", "node-view-change", "node-view-delete"),
    *(
        "attention-release",
        "node-timeline",
        "node-describe",
        "patch-build-again",
        "server-action",
        "campaign-filter",
        "campaign-halt",
    ),
    *("oidc-login", "oidc-callback", "logout", "account-sessions-end", "token-revoke", "user-role", "user-activate"),
    *("user-deactivate", "user-password", "user-unlock", "audit-export", "version-dossier-file"),
    "version-judge-again",
    "image-guard",
}


def names(resolver: URLResolver) -> Iterator[str]:
    for one in resolver.url_patterns:
        if isinstance(one, URLResolver):
            yield from names(one)
        elif isinstance(one, URLPattern):
            yield str(one.name)


@pytest.fixture
def shown(fleet: Fleet) -> Fleet:
    """With a network server, patches, a draft that costs something and an audited change besides."""
    server = NetworkServer.objects.create(
        name="field", target="chirpstack.example:443", token_sealed=b"", event_base_url="https://fleet.example"
    )
    old, new = fleet.version.family.versions.order_by("pk")
    factories.make_patch(old, new)
    factories.make_patch(new, old, state="failed", failure="codec 1: decodes to other bytes", attempts=3)
    # Bytes that are a network, for its memory map.
    fleet.version.images.update(blob=store(tiny_model(1)))
    record(actor="olga", action="server.changed", subject=server, before={"name": "a"}, after={"name": "field"})
    return fleet


def serious(page: Page, *rules: str) -> list[str]:
    """Violations of `rules`, or of all, that axe calls serious or critical, with the elements that have them."""
    options: dict[str, Any] = {"resultTypes": ["violations"]}
    if rules:
        options["runOnly"] = list(rules)
    found = Axe().run(page, options=options).response["violations"]
    return [
        f"{one['id']}: {node['target']} {node['failureSummary']}"
        for one in found
        if one["impact"] in ("serious", "critical")
        for node in one["nodes"]
    ]


def test_every_address_of_the_dashboard_has_a_case() -> None:
    known = set(names(get_resolver("frontend.urls")))

    assert known | {"status"} == set(PAGES) | NO_PAGES
    assert not set(PAGES) & NO_PAGES


@pytest.mark.parametrize("name", PAGES)
def test_a_page_fits_its_window_and_axe_finds_nothing_serious(shown: Fleet, visitor: Visitor, name: str) -> None:
    factories.make_user(Role.VIEWER)
    page = visitor.page(None if name == "login" else Role.ADMIN)
    for case in PAGES[name](shown):
        address = reverse(name) + case if isinstance(case, str) else reverse(name, args=case)
        answer = page.goto(address)
        page.wait_for_load_state("load")
        assert answer is not None
        assert answer.status == (400 if "colour" in address else 200), address

        for width, height in (NARROW, WIDE):
            page.set_viewport_size({"width": width, "height": height})
            assert overflow(page) <= 0, f"{address} is {overflow(page)} px too wide at {width}"
        assert serious(page) == [], f"{address}, light"
        # Nothing but colours differs between the themes.
        page.emulate_media(color_scheme="dark")
        assert serious(page, "color-contrast") == [], f"{address}, dark"
        page.emulate_media(color_scheme="light")
    assert visitor.errors == []
