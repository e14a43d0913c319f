"""`manage.py check --deploy` is silent on a sound installation and names what is missing on any other."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from updates.patches.signing import generate_key_file

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def sound(tmp_path: Path) -> dict[str, str]:
    key = tmp_path / "signing-key.pem"
    generate_key_file(key)
    return {
        "PATH": os.environ["PATH"],
        "DATABASE_URL": os.environ["DATABASE_URL"],
        "REDIS_URL": os.environ["REDIS_URL"],
        "MODELFLEET_PRODUCTION": "1",
        "MODELFLEET_VAR": str(tmp_path),
        "SECRET_KEY": "k9-Vx2_qT7mZr4Lw8Ns1Bd6Hf3Jc0Pg5Ya-Ue_Io-Ktr6Mn2Xv8Qz4",
        "ALLOWED_HOSTS": "localhost,fleet.example.com",
        "CSRF_TRUSTED_ORIGINS": "https://fleet.example.com",
        "PUBLIC_URL": "https://fleet.example.com",
        "SIGNING_KEY_FILE": str(key),
    }


def check(environment: dict[str, str]) -> tuple[int, str]:
    command = [sys.executable, "manage.py", "check", "--deploy", "--fail-level", "WARNING"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False)
    return done.returncode, done.stdout + done.stderr


def test_a_sound_installation_has_nothing_to_mend(sound: dict[str, str]) -> None:
    code, output = check(sound)
    assert (code, "no issues" in output) == (0, True), output


def test_each_thing_that_is_missing_is_named(sound: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "signing-key.pem").chmod(0o644)
    del sound["SECRET_KEY"], sound["CSRF_TRUSTED_ORIGINS"], sound["REDIS_URL"]
    sound |= {"MODELFLEET_PRODUCTION": "", "ALLOWED_HOSTS": "localhost", "PUBLIC_URL": "http://fleet.example.com"}
    code, output = check(sound | {"LWM2M_BIND": "0.0.0.0"})  # noqa: S104 - nothing listens in a check
    assert code == 1
    for number in ("E001", "E002", "E003", "E004", "W005", "E007", "E009"):
        assert f"modelfleet.{number}" in output, output
    assert "chmod 600" in output


def test_a_signing_key_that_is_not_there_is_named_unless_it_comes_as_a_variable(sound: dict[str, str]) -> None:
    sound["SIGNING_KEY_FILE"] = "/nowhere/signing-key.pem"
    assert "modelfleet.E006" in check(sound)[1]
    assert check(sound | {"MODELFLEET_SIGNING_KEY": "11" * 32})[0] == 0
