from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client

from fleet.accounts.models import Role, User
from fleet.accounts.services import issue_token

Caller = Callable[..., Any]


@pytest.fixture
def call(db: None) -> Caller:
    """call(role, method, path, body) with a token of that role, or with none for None; a text is CSV."""
    client = Client(raise_request_exception=False)
    secrets: dict[str, str] = {}

    def send(role: str | None, method: str, path: str, body: Any = None, **files: Any) -> Any:
        headers = {}
        if role:
            if role not in secrets:
                user = User.objects.create(username=role, role=role)
                _, secrets[role] = issue_token(user=user, name="ci", role=Role.ADMIN, actor="test")
            headers["Authorization"] = f"Bearer {secrets[role]}"
        content_type = "text/csv" if isinstance(body, str) else "application/json"
        data: dict[str, Any] = {"data": body if body is not None else b"", "content_type": content_type}
        if files:
            data = {"data": files}
        elif method == "GET":
            data = {}
        return getattr(client, method.lower())(f"/api/v1{path}", headers=headers, **data)

    return send
