from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.updates.campaigns.scene import Scene
from updates.campaigns.reconcile import reconcile


@pytest.fixture
def scene(db: None, settings: object) -> Scene:
    return Scene()


@pytest.fixture
def books_broken_on_purpose() -> None:
    """For tests that show what reconcile finds."""


@pytest.fixture(autouse=True)
def books_are_right(request: pytest.FixtureRequest, db: None) -> Iterator[None]:
    """Whatever a test did to the engine, what is counted is what is there."""
    yield
    if "books_broken_on_purpose" not in request.fixturenames:
        assert reconcile() == []
