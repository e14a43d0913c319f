"""Every endpoint with every role, and with tokens that carry less than their user may do."""

from __future__ import annotations

import re

import pytest
from django.test import Client

from fleet.accounts.models import Role, Scope
from fleet.accounts.permissions import reaches
from fleet.accounts.services import issue_token
from fleet.api import api
from tests import factories
from tests.integration.api.conftest import Caller
from updates.states import CAMPAIGN, CampaignState

# The scope that each operation needs, and what it answers then: nothing exists yet, and every body is empty.
ENDPOINTS = {
    ("POST", "/families"): (Scope.UPLOAD, 422),
    ("GET", "/versions"): (Scope.READ, 200),
    ("POST", "/versions"): (Scope.UPLOAD, 422),
    ("GET", "/versions/{version_id}"): (Scope.READ, 404),
    ("GET", "/versions/{version_id}/fit"): (Scope.READ, 404),
    ("GET", "/versions/{version_id}/validation"): (Scope.READ, 404),
    ("POST", "/versions/{version_id}/judge-again"): (Scope.UPLOAD, 404),
    ("POST", "/versions/{version_id}/compiled-images"): (Scope.UPLOAD, 422),
    ("POST", "/firmware-builds/{name}/network-report"): (Scope.NODES, 422),
    ("GET", "/versions/{version_id}/dossier"): (Scope.READ, 404),
    ("GET", "/versions/{version_id}/evaluation"): (Scope.READ, 404),
    ("GET", "/images/{digest}/data"): (Scope.READ, 404),
    ("GET", "/images/{digest}/guard.h"): (Scope.READ, 404),
    ("GET", "/nodes"): (Scope.READ, 200),
    ("POST", "/nodes"): (Scope.NODES, 422),
    ("GET", "/nodes/count"): (Scope.READ, 200),
    ("POST", "/nodes/bulk"): (Scope.NODES, 422),
    ("POST", "/nodes/labels"): (Scope.NODES, 422),
    ("POST", "/nodes/import"): (Scope.NODES, 422),
    ("GET", "/nodes/import-template"): (Scope.READ, 200),
    ("GET", "/nodes/export"): (Scope.READ, 200),
    ("POST", "/reports"): (Scope.NODES, 422),
    ("GET", "/node-views"): (Scope.READ, 200),
    ("POST", "/node-views"): (Scope.READ, 422),
    ("PATCH", "/node-views/{view_id}"): (Scope.READ, 404),
    ("DELETE", "/node-views/{view_id}"): (Scope.READ, 404),
    ("GET", "/nodes/{node_id}"): (Scope.READ, 404),
    ("GET", "/profiles"): (Scope.READ, 200),
    ("POST", "/profiles"): (Scope.NODES, 422),
    ("POST", "/profiles/{name}/linker-map"): (Scope.NODES, 422),
    ("GET", "/firmware-builds"): (Scope.READ, 200),
    ("POST", "/firmware-builds"): (Scope.NODES, 422),
    ("GET", "/patches"): (Scope.READ, 200),
    ("POST", "/patches/{patch_id}/build-again"): (Scope.UPLOAD, 404),
    ("GET", "/campaigns"): (Scope.READ, 200),
    ("POST", "/campaigns"): (Scope.CAMPAIGNS, 422),
    ("GET", "/campaigns/{campaign_id}"): (Scope.READ, 404),
    ("GET", "/campaigns/{campaign_id}/nodes"): (Scope.READ, 404),
    ("POST", "/campaigns/{campaign_id}/approve"): (Scope.APPROVE, 422),
    ("POST", "/campaigns/{campaign_id}/start"): (Scope.APPROVE, 404),
    ("POST", "/campaigns/{campaign_id}/pause"): (Scope.CAMPAIGNS, 404),
    ("POST", "/campaigns/{campaign_id}/resume"): (Scope.APPROVE, 404),
    ("POST", "/campaigns/{campaign_id}/abort"): (Scope.CAMPAIGNS, 404),
    ("POST", "/campaigns/{campaign_id}/rollback"): (Scope.APPROVE, 404),
    ("GET", "/attention"): (Scope.READ, 200),
    ("POST", "/attention/nodes/{node_id}/release"): (Scope.CAMPAIGNS, 404),
    ("GET", "/tokens"): (Scope.READ, 200),
    ("POST", "/tokens"): (Scope.READ, 422),
    ("DELETE", "/tokens/{token_id}"): (Scope.READ, 404),
    ("GET", "/audit"): (Scope.AUDIT, 200),
    ("GET", "/audit/export.{kind}"): (Scope.AUDIT, 200),
    ("GET", "/network-servers"): (Scope.READ, 200),
    ("POST", "/network-servers"): (Scope.ADMIN, 422),
    ("GET", "/network-servers/{server_id}"): (Scope.READ, 404),
    ("PATCH", "/network-servers/{server_id}"): (Scope.ADMIN, 404),
    ("DELETE", "/network-servers/{server_id}"): (Scope.ADMIN, 404),
    ("POST", "/network-servers/{server_id}/check"): (Scope.NODES, 404),
    ("POST", "/network-servers/{server_id}/setup"): (Scope.ADMIN, 404),
    ("POST", "/network-servers/{server_id}/discover"): (Scope.ADMIN, 404),
}


def test_each_operation_that_moves_a_campaign_takes_the_role_that_the_state_machine_names() -> None:
    moves = {
        "start": CampaignState.SCHEDULED,
        "pause": CampaignState.PAUSED,
        "resume": CampaignState.RUNNING,
        "abort": CampaignState.ABORTED,
    }
    asked = {name: ENDPOINTS["POST", f"/campaigns/{{campaign_id}}/{name}"][0].role for name in moves}
    assert asked == {name: CAMPAIGN.role_for(state) for name, state in moves.items()}


def concrete(path: str) -> str:
    """With values that name nothing."""
    named = {"{digest}": "0" * 64, "{kind}": "csv", "{token_id}": str(2**62)}
    for placeholder, value in named.items():
        path = path.replace(placeholder, value)
    return re.sub(r"{\w+_id}", "1", path)


def test_the_table_names_every_operation() -> None:
    paths = api.get_openapi_schema()["paths"]
    operations = {(method.upper(), path.removeprefix("/api/v1")) for path in paths for method in paths[path]}
    assert operations == set(ENDPOINTS)


@pytest.mark.parametrize("role", [None, *Role.values])
@pytest.mark.parametrize(("method", "path"), list(ENDPOINTS))
def test_an_operation_answers_a_role_as_the_table_says(call: Caller, method: str, path: str, role: str | None) -> None:
    needed, status = ENDPOINTS[method, path]
    response = call(role, method, concrete(path), {} if method in ("POST", "PATCH") else None)
    expected = 401 if role is None else status if reaches(role, needed.role) else 403
    assert response.status_code == expected, response.getvalue()
    if expected >= 400:
        assert response["Content-Type"] == "application/problem+json"
        assert response.json()["status"] == expected
        assert response.json()["detail"]


@pytest.mark.parametrize(("method", "path"), list(ENDPOINTS))
def test_an_admins_token_does_only_what_its_scopes_name(db: None, method: str, path: str) -> None:
    needed, status = ENDPOINTS[method, path]
    admin = factories.make_user(Role.ADMIN)

    def answer(scopes: list[str]) -> int:
        _, secret = issue_token(user=admin, name="ci", scopes=scopes, actor="test")
        body = {"data": {}, "content_type": "application/json"} if method in ("POST", "PATCH") else {}
        headers = {"Authorization": f"Bearer {secret}"}
        client = Client()
        return getattr(client, method.lower())(f"/api/v1{concrete(path)}", headers=headers, **body).status_code

    assert answer([needed]) == status
    assert answer([scope for scope in Scope.values if scope != needed]) == 403
