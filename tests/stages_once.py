"""`stages_run_once`: a stage of the pipeline that gets what it got before in this run gives what it gave.

Most tests of builds, verdicts and screens begin with the same few networks, and converting and quantizing those again took
more than a third of the time of all tests. What a stage gives depends on its arguments and files alone: test_build.py and
test_alignment.py hold it to that, by runs that this does not touch.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from updates.pipeline import child
from updates.pipeline.types import Refused

_ITS_OWN = ("arguments.json", "result.json", "stderr", "lock")


@dataclass
class _Memory:
    """Results, or the refusal, with the files that the stage made, by what it was given."""

    kept: dict[str, tuple[dict[str, Any] | Refused, dict[str, bytes]]] = field(default_factory=dict)

    def run(
        self, stage: str, function: str, directory: Path, arguments: dict[str, Any], **limits: Any
    ) -> dict[str, Any]:
        before = _files(directory)
        given = hashlib.sha256(json.dumps([function, arguments, limits, before], sort_keys=True).encode()).hexdigest()
        if given in self.kept:
            result, made = self.kept[given]
            for name, data in made.items():
                (directory / name).write_bytes(data)
            if isinstance(result, Refused):
                raise Refused(**vars(result))
            return json.loads(json.dumps(result))  # type: ignore[no-any-return]
        try:
            result = self._real(stage, function, directory, arguments, **limits)
        except Refused as refused:
            if refused.code not in ("time_limit", "memory_limit", "crashed"):
                self.kept[given] = (refused, _made(directory, before))
            raise
        self.kept[given] = (json.loads(json.dumps(result)), _made(directory, before))
        return result

    _real = staticmethod(child.run)


def _files(directory: Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in directory.iterdir()
        if path.is_file() and path.name not in _ITS_OWN
    }


def _made(directory: Path, before: dict[str, str]) -> dict[str, bytes]:
    now = _files(directory)
    return {name: (directory / name).read_bytes() for name, digest in now.items() if before.get(name) != digest}


_memory = _Memory()


@pytest.fixture
def stages_run_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "run", _memory.run)
