"""The two places where an operator puts secrets reach neither the repository nor the image."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize("file", [".gitignore", ".dockerignore"])
@pytest.mark.parametrize("secret", [".env", "secrets"])
def test_secrets_are_ignored(file: str, secret: str) -> None:
    assert secret in {line.strip("/") for line in (ROOT / file).read_text().splitlines()}
