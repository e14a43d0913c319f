"""Every operation of the description, with values made up from it, for every role: nothing answers what is not written.

A role that lacks an operation must get 403 whatever it sends, an absent or dead token 401 or 429.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
import schemathesis
from django.core.handlers.wsgi import WSGIHandler
from django.core.signals import request_finished, request_started
from django.db import close_old_connections
from django.utils import timezone
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.config import SchemathesisConfig
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from fleet.accounts.models import ApiToken, Role, User
from fleet.accounts.permissions import reaches
from fleet.accounts.services import issue_token
from fleet.api import api
from tests import factories
from tests.integration.api.test_roles import ENDPOINTS

pytestmark = pytest.mark.django_db
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
DEAD = ["anonymous", "expired"]
CALLERS = [*DEAD, *Role.values]
OPERATIONS = sorted(ENDPOINTS)


@pytest.fixture(scope="module")
def description() -> Any:
    """As a client reads it: with text for keys."""
    config = SchemathesisConfig.from_dict({"generation": {"allow-x00": True}})
    schema = schemathesis.openapi.from_dict(json.loads(json.dumps(api.get_openapi_schema())), config=config)
    schema.app = WSGIHandler()
    return schema


@pytest.fixture(autouse=True)
def one_transaction() -> Iterator[None]:
    """As Django's own test client does: the end of a request would else take the test's connection away."""
    for signal in (request_started, request_finished):
        signal.disconnect(close_old_connections)
    yield
    for signal in (request_started, request_finished):
        signal.connect(close_old_connections)


def _headers(caller: str) -> dict[str, str]:
    if caller == "anonymous":
        return {}
    role = Role.ADMIN if caller == "expired" else Role(caller)
    ended = timezone.now() - timedelta(seconds=1) if caller == "expired" else None
    user = User.objects.create(username=caller, role=role)
    _, secret = issue_token(user=user, name=caller, role=Role.ADMIN, expires_at=ended, actor="test")
    return {"Authorization": f"Bearer {secret}"}


def _world() -> None:
    """Rows with low ids, so that made-up ids meet some of them."""
    profile = factories.make_profile(name="stm32l4")
    version = factories.make_version(profiles=[profile], name="1.0.0")
    node = factories.make_node(profile=profile, active_digest=version.images.get().digest)
    factories.make_campaign(version=version, waves=[[(node, "confirmed")]])


def _fuzz(description: Any, method: str, path: str, examples: int) -> None:
    _world()
    headers = {caller: _headers(caller) for caller in CALLERS}
    operation = description[f"/api/v1{path}"][method.lower()]
    needed = ENDPOINTS[method, path][0].role
    # What contradicts the description is refused as the description says, too.
    takes_input = bool(operation.body) or any(True for _ in operation.iter_parameters())
    modes = [GenerationMode.POSITIVE, *([GenerationMode.NEGATIVE] if takes_input else [])]

    # The same values each time: a build that fails must fail again.
    @seed(1)
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=st.one_of(operation.as_strategy(generation_mode=mode) for mode in modes))
    def one(case: Any) -> None:
        case.headers = {name: value for name, value in case.headers.items() if name.lower() != "authorization"}
        for caller in CALLERS:
            may = caller not in DEAD and reaches(caller, needed)
            # An address that is none is not found whoever asks, so wrong ones are for those who may.
            if may or case.meta.generation.mode.is_positive:
                _judge(case, caller, headers[caller], may=may)

    one()


def _judge(case: Any, caller: str, headers: dict[str, str], *, may: bool) -> None:
    # A token may revoke itself; the next one needs it again.
    ApiToken.objects.update(revoked_at=None)
    response = case.call_and_validate(headers=headers, checks=CHECKS)
    assert response.status_code != 503
    # Among what it gets wrong on purpose is a token left out.
    if caller in DEAD or "Authorization" not in response.request.headers:
        assert response.status_code in (401, 429)
    elif not may:
        assert response.status_code == 403
    else:
        assert response.status_code not in (401, 429)


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_no_answer_to_any_role_is_undocumented(description: Any, method: str, path: str) -> None:
    _fuzz(description, method, path, 8)


@pytest.mark.long
@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_no_answer_to_any_role_is_undocumented_in_depth(description: Any, method: str, path: str) -> None:
    _fuzz(description, method, path, 100)
