"""Which Chromium the tests use, and what its absence means."""

from __future__ import annotations

import os
import shutil

import pytest


def chromium_path() -> str:
    """Skips the test without Chromium; fails it where BROWSER_REQUIRED is set, as CI does."""
    if found := shutil.which("chromium"):
        return found
    if os.environ.get("BROWSER_REQUIRED"):
        pytest.fail("Chromium is not installed, and BROWSER_REQUIRED forbids to skip: apt-get install chromium")
    pytest.skip("Debian's chromium is not installed: apt-get install chromium")
