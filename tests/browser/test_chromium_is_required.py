"""Without Chromium the tests of this folder skip with a reason; in CI they fail."""

from __future__ import annotations

import shutil

import pytest

from tests.browser.chromium import chromium_path


@pytest.fixture
def no_chromium(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)


def test_it_is_skipped_with_a_reason(no_chromium: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BROWSER_REQUIRED", raising=False)
    with pytest.raises(pytest.skip.Exception, match="chromium is not installed"):
        chromium_path()


def test_where_it_is_required_its_absence_fails(no_chromium: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BROWSER_REQUIRED", "1")
    with pytest.raises(pytest.fail.Exception, match="forbids"):
        chromium_path()
