"""An installation signs with one key, wherever that lies."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_django import Settings

from updates.patches.signing import ENVIRONMENT_VARIABLE, generate_key_file
from updates.signer import installation_signer


@pytest.fixture(autouse=True)
def nothing_remembered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv(ENVIRONMENT_VARIABLE, raising=False)
    installation_signer.cache_clear()
    yield
    installation_signer.cache_clear()


def test_a_key_in_a_directory_that_cannot_be_written_is_used(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.SIGNING_KEY_FILE = tmp_path / "signing-key"
    known = generate_key_file(settings.SIGNING_KEY_FILE)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError("read-only, also for root")

    monkeypatch.setattr(tempfile, "mkstemp", refuse)
    assert installation_signer().public_key == known.public_key


def test_a_key_is_made_on_first_run_and_kept(tmp_path: Path, settings: Settings) -> None:
    settings.SIGNING_KEY_FILE = tmp_path / "new" / "signing-key.pem"
    first = installation_signer()
    installation_signer.cache_clear()
    assert installation_signer().public_key == first.public_key
    assert settings.SIGNING_KEY_FILE.stat().st_mode & 0o777 == 0o600
