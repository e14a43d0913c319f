"""Every address of the product with every role. A new address fails here until its role is declared."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver

from devices.links.lorawan.chirpstack import TOKEN_PURPOSE
from devices.models import NetworkServer, SavedView
from fleet.accounts.models import Role, Throttle, User
from fleet.accounts.permissions import Scope, reaches
from fleet.accounts.services import issue_token
from fleet.sealing import seal
from tests import factories
from tests.integration.frontend.conftest import Fleet
from updates.models import Patch

EVERYBODY = None
NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
# The role that each address needs; the method is POST where it changes something at once.
ADDRESSES: dict[str, tuple[str, Role | None]] = {
    "login": ("GET", EVERYBODY),
    "oidc-login": ("GET", EVERYBODY),
    "oidc-callback": ("GET", EVERYBODY),
    "logout": ("POST", EVERYBODY),
    # Probes; /metrics asks for a token of its own.
    "health-live": ("GET", EVERYBODY),
    "health-ready": ("GET", EVERYBODY),
    "metrics": ("GET", EVERYBODY),
    "status": ("GET", Scope.READ.role),
    "fleet": ("GET", Scope.READ.role),
    "attention": ("GET", Scope.READ.role),
    "attention-release": ("POST", Scope.CAMPAIGNS.role),
    "nodes": ("GET", Scope.READ.role),
    "nodes-unknown": ("GET", Scope.READ.role),
    "node-new": ("GET", Scope.NODES.role),
    "hardware": ("GET", Scope.READ.role),
    "hardware-profile-new": ("GET", Scope.NODES.role),
    "hardware-firmware-new": ("GET", Scope.NODES.role),
    "node-count": ("GET", Scope.READ.role),
    "node": ("GET", Scope.READ.role),
    "node-timeline": ("GET", Scope.READ.role),
    "node-describe": ("POST", Scope.NODES.role),
    "nodes-export": ("GET", Scope.READ.role),
    "nodes-relabel": ("GET", Scope.NODES.role),
    "nodes-import": ("GET", Scope.NODES.role),
    "nodes-import-template": ("GET", Scope.READ.role),
    "node-view-save": ("POST", Scope.READ.role),
    "node-view-change": ("POST", Scope.READ.role),
    "node-view-delete": ("POST", Scope.READ.role),
    "servers": ("GET", Scope.READ.role),
    "server-new": ("GET", Scope.ADMIN.role),
    "server-edit": ("GET", Scope.ADMIN.role),
    "server-action": ("POST", Scope.NODES.role),
    "versions": ("GET", Scope.READ.role),
    "version": ("GET", Scope.READ.role),
    "version-judge-again": ("POST", Scope.UPLOAD.role),
    "image-guard": ("GET", Scope.READ.role),
    "version-compare": ("GET", Scope.READ.role),
    "version-dossier": ("GET", Scope.READ.role),
    "version-dossier-file": ("GET", Scope.READ.role),
    "version-memory": ("GET", Scope.READ.role),
    "patches": ("GET", Scope.READ.role),
    "patch-build-again": ("POST", Scope.UPLOAD.role),
    "version-upload": ("GET", Scope.UPLOAD.role),
    "campaigns": ("GET", Scope.READ.role),
    "campaign-new": ("GET", Scope.CAMPAIGNS.role),
    "campaign-filter": ("GET", Scope.READ.role),
    "campaign": ("GET", Scope.READ.role),
    "campaign-plan": ("GET", Scope.READ.role),
    "campaign-halt": ("POST", Scope.CAMPAIGNS.role),
    "campaign-action": ("GET", Scope.APPROVE.role),
    "account": ("GET", Scope.READ.role),
    "account-sessions-end": ("POST", Scope.READ.role),
    "tokens": ("GET", Scope.READ.role),
    "token-revoke": ("POST", Scope.ADMIN.role),
    "roles": ("GET", Scope.READ.role),
    "users": ("GET", Scope.ADMIN.role),
    "user-new": ("GET", Scope.ADMIN.role),
    "user": ("GET", Scope.ADMIN.role),
    "user-role": ("POST", Scope.ADMIN.role),
    "user-activate": ("POST", Scope.ADMIN.role),
    "user-deactivate": ("POST", Scope.ADMIN.role),
    "user-password": ("POST", Scope.ADMIN.role),
    "user-unlock": ("POST", Scope.ADMIN.role),
    "audit": ("GET", Scope.AUDIT.role),
    "audit-export": ("GET", Scope.AUDIT.role),
}
# Held by tests of their own: the API by tests/integration/api/test_roles.py, Django's admin by its own staff check, events
# of ChirpStack, which bring a secret, by tests/integration/lorawan/test_events_come_in.py.
ELSEWHERE = ("admin/", "api/v1/", "links/")
# What belongs to somebody else does not exist for those who may not see it.
OTHERS = ("token-revoke", "node-view-change", "node-view-delete")


def addresses(patterns: list[URLPattern | URLResolver], prefix: str = "") -> Iterator[tuple[str, str]]:
    for pattern in patterns:
        route = prefix + str(pattern.pattern)
        if route.startswith(ELSEWHERE):
            continue
        if isinstance(pattern, URLResolver):
            yield from addresses(pattern.url_patterns, route)
        else:
            yield pattern.name or route, route


ROUTES = dict(addresses(get_resolver().url_patterns))


def test_every_address_has_declared_its_role() -> None:
    assert set(ROUTES) == set(ADDRESSES)


def concrete(name: str, fleet: Fleet) -> str:
    user = User.objects.create(username=f"subject of {name}")
    token, _ = issue_token(user=user, name="ci", role=Role.VIEWER, actor="test")
    patch = Patch.objects.first() or factories.make_patch(fleet.version, factories.make_version())
    lock = Throttle.objects.create(key=name, rule="login-user", address="192.0.2.1", since=NOW)
    server, _ = NetworkServer.objects.get_or_create(
        name="plant", defaults={"target": "127.0.0.1:1", "token_sealed": seal(b"key", purpose=TOKEN_PURPOSE)}
    )
    view = SavedView.objects.create(owner=user, name="theirs")
    values = {
        "<int:view_id>": view.pk,
        "<int:server_id>": server.pk,
        "<int:node_id>": fleet.nodes["confirmed"].pk,
        "<int:version_id>": fleet.version.pk,
        "<str:digest>": fleet.version.images.first().digest,
        "<int:campaign_id>": fleet.draft.pk if name == "campaign-plan" else fleet.campaign.pk,
        "<slug:action>": "check" if name == "server-action" else "roll-back",
        "<int:patch_id>": patch.pk,
        "<int:user_id>": user.pk,
        "<int:token_id>": token.pk,
        "<int:throttle_id>": lock.pk,
        "<slug:kind>": "csv",
    }
    route = ROUTES[name]
    for placeholder, value in values.items():
        route = route.replace(placeholder, str(value))
    assert "<" not in route, f"give {route} a value"
    return f"/{route}"


@pytest.mark.parametrize("role", [None, *Role])
def test_each_address_answers_a_role_as_the_table_says(fleet: Fleet, role: Role | None) -> None:
    user = factories.make_user(role) if role else None
    for name, (method, needed) in ADDRESSES.items():
        address, client = concrete(name, fleet), Client()
        if user is not None:
            user.refresh_from_db()
            client.force_login(user)

        response = client.get(address) if method == "GET" else client.post(address)

        to_login = response.status_code == 302 and response["Location"].startswith("/login/?next=")
        if needed is EVERYBODY:
            assert response.status_code in (200, 302, 404, 503), name
            assert not to_login, name
        elif role is None:
            assert to_login, name
        elif reaches(role, needed):
            # 400: what is posted here is empty.
            assert response.status_code in (200, 302, 400, *((404,) if name in OTHERS else ())), name
            assert not to_login, name
        else:
            assert response.status_code == (404 if name in OTHERS else 403), name
