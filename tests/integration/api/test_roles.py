"""Every endpoint with every role."""

from __future__ import annotations

import pytest

from fleet.accounts.models import Role
from fleet.api import api
from tests.integration.api.conftest import Caller

READ, WRITE, APPROVE, KEEP = Role.VIEWER, Role.OPERATOR, Role.APPROVER, Role.ADMIN
# What each operation answers once the role suffices: nothing exists yet, and every body is empty.
ENDPOINTS = {
    ("POST", "/families"): (WRITE, 422),
    ("GET", "/versions"): (READ, 200),
    ("POST", "/versions"): (WRITE, 422),
    ("GET", "/versions/{version_id}"): (READ, 404),
    ("GET", "/versions/{version_id}/fit"): (READ, 404),
    ("GET", "/versions/{version_id}/validation"): (READ, 404),
    ("GET", "/images/{digest}/data"): (READ, 404),
    ("GET", "/nodes"): (READ, 200),
    ("POST", "/nodes"): (WRITE, 422),
    ("GET", "/nodes/count"): (READ, 200),
    ("POST", "/nodes/bulk"): (WRITE, 422),
    ("GET", "/nodes/{node_id}"): (READ, 404),
    ("GET", "/profiles"): (READ, 200),
    ("POST", "/profiles"): (WRITE, 422),
    ("GET", "/firmware-builds"): (READ, 200),
    ("POST", "/firmware-builds"): (WRITE, 422),
    ("GET", "/campaigns"): (READ, 200),
    ("POST", "/campaigns"): (WRITE, 422),
    ("GET", "/campaigns/{campaign_id}"): (READ, 404),
    ("GET", "/campaigns/{campaign_id}/nodes"): (READ, 404),
    ("POST", "/campaigns/{campaign_id}/approve"): (APPROVE, 422),
    ("POST", "/campaigns/{campaign_id}/start"): (APPROVE, 404),
    ("POST", "/campaigns/{campaign_id}/pause"): (WRITE, 404),
    ("POST", "/campaigns/{campaign_id}/resume"): (APPROVE, 404),
    ("POST", "/campaigns/{campaign_id}/abort"): (WRITE, 404),
    ("POST", "/campaigns/{campaign_id}/rollback"): (APPROVE, 404),
    ("GET", "/network-servers"): (READ, 200),
    ("POST", "/network-servers"): (KEEP, 422),
    ("GET", "/network-servers/{server_id}"): (READ, 404),
    ("PATCH", "/network-servers/{server_id}"): (KEEP, 404),
    ("DELETE", "/network-servers/{server_id}"): (KEEP, 404),
    ("POST", "/network-servers/{server_id}/check"): (WRITE, 404),
    ("POST", "/network-servers/{server_id}/setup"): (KEEP, 404),
    ("POST", "/network-servers/{server_id}/discover"): (KEEP, 404),
}
RANKS = list(Role.values)


def test_the_table_names_every_operation() -> None:
    paths = api.get_openapi_schema()["paths"]
    operations = {(method.upper(), path.removeprefix("/api/v1")) for path in paths for method in paths[path]}
    assert operations == set(ENDPOINTS)


@pytest.mark.parametrize("role", [None, *RANKS])
@pytest.mark.parametrize(("method", "path"), list(ENDPOINTS))
def test_an_operation_answers_a_role_as_the_table_says(call: Caller, method: str, path: str, role: str | None) -> None:
    needed, status = ENDPOINTS[method, path]
    concrete = (
        path.replace("{version_id}", "1")
        .replace("{node_id}", "1")
        .replace("{digest}", "0" * 64)
        .replace("{campaign_id}", "1")
        .replace("{server_id}", "1")
    )
    response = call(role, method, concrete, {} if method in ("POST", "PATCH") else None)
    expected = 401 if role is None else status if RANKS.index(role) >= RANKS.index(needed) else 403
    assert response.status_code == expected, response.content
    if expected >= 400:
        assert response["Content-Type"] == "application/problem+json"
        assert response.json()["status"] == expected
        assert response.json()["detail"]
