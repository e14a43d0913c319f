"""Runs the whole suite against embedded services unless DATABASE_URL and REDIS_URL name others."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest

from devices.agent.build import build
from fleet.embedded.services import start_services

# At import, by `-p` in pyproject.toml: pytest-django reads the settings before any conftest.py is loaded.
build()
_var = Path(tempfile.mkdtemp(prefix="modelfleet-tests-"))
_services = start_services(_var, durable=False)
os.environ.update(_services.environment())


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    _services.stop()
    shutil.rmtree(_var)
