from __future__ import annotations

import pytest

from tests.integration.updates.campaigns.scene import Scene


@pytest.fixture
def scene(db: None, settings: object) -> Scene:
    return Scene()
