"""Stages that misbehave, for the tests of the child process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from updates.pipeline.types import Refused


def answer(directory: Path, arguments: dict[str, Any]) -> dict[str, Any]:
    return {"answer": arguments["question"] + 1}


def hang(directory: Path, arguments: dict[str, Any]) -> dict[str, Any]:
    grandchild = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
    (directory / "grandchild").write_text(str(grandchild.pid))
    grandchild.wait()
    return {}


def devour(directory: Path, arguments: dict[str, Any]) -> dict[str, Any]:
    return {"size": len(bytearray(3 * 1024**3))}


def abort(directory: Path, arguments: dict[str, Any]) -> dict[str, Any]:
    os.write(2, b"schema version 99 is not supported\n")
    os.abort()


def refuse(directory: Path, arguments: dict[str, Any]) -> dict[str, Any]:
    raise Refused(stage="judge", code="c", field="f", message="m", fix="x")


def wait_forever(directory: Path, arguments: dict[str, Any]) -> dict[str, Any]:
    signal.pause()
    return {}
