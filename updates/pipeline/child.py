"""Runs a stage of the pipeline in a process of its own: its crash, hunger or endless loop is not ours.

A stage is a function `(directory, arguments) -> results`; arguments and results are JSON, larger things are files in
the directory (never pickles: what a stage writes was made from what a user uploaded).
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from updates.pipeline.types import Refused

TIME_LIMIT_S = 300.0
MEMORY_LIMIT_BYTES = 2 * 1024**3
_REPOSITORY = Path(__file__).resolve().parents[2]
_KILL_WHEN_PARENT_DIES = 1  # PR_SET_PDEATHSIG, prctl(2)
# One thread each: a build must not depend on the number of cores, and each thread costs address space.
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "MALLOC_ARENA_MAX"), "1")
# Sums in one order on every x86-64: the weights are rounded by what linear algebra finds.
_SAME_ARITHMETIC = {"OPENBLAS_CORETYPE": "NEHALEM"}

Stage = Callable[[Path, dict[str, Any]], dict[str, Any]]


def run(
    stage: str,
    function: str,
    directory: Path,
    arguments: dict[str, Any],
    *,
    time_limit_s: float = TIME_LIMIT_S,
    memory_limit_bytes: int = MEMORY_LIMIT_BYTES,
) -> dict[str, Any]:
    """Calls `function` ("package.module:name") in a child and returns its results.

    The child leads its own process group, which is killed whole at the end, however it ended. Raises Refused: the
    child's own refusal, or code `time_limit`, `memory_limit`, or `crashed` with the last line of its stderr.
    """
    (directory / "arguments.json").write_text(json.dumps(arguments))
    result_path = directory / "result.json"
    result_path.unlink(missing_ok=True)
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG", "LD_LIBRARY_PATH")}
    environment = (
        kept
        | _ONE_THREAD
        | _SAME_ARITHMETIC
        | {"PYTHONPATH": str(_REPOSITORY), "PYTHONHASHSEED": "0", "TMPDIR": str(directory)}
    )
    with (directory / "stderr").open("wb") as stderr:
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "updates.pipeline.child",
                function,
                str(directory),
                str(memory_limit_bytes),
                str(int(time_limit_s) + 1),
                str(os.getpid()),
            ],
            cwd=directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            start_new_session=True,
        )
        try:
            status = process.wait(timeout=time_limit_s)
        except subprocess.TimeoutExpired:
            raise Refused(
                stage=stage,
                code="time_limit",
                field="onnx",
                message=f"stage {stage} took longer than its limit of {time_limit_s:g} s",
                fix="make the model or its data smaller",
            ) from None
        finally:
            _end(process)
    tail = stderr_tail(directory)
    if not result_path.exists():
        if "MemoryError" in tail or "bad_alloc" in tail or "Cannot allocate memory" in tail:
            raise Refused(
                stage=stage,
                code="memory_limit",
                field="onnx",
                message=f"stage {stage} needed more than its limit of {memory_limit_bytes} bytes of memory",
                fix="make the model or its data smaller",
            )
        last = tail.strip().splitlines()[-1] if tail.strip() else "it wrote nothing"
        raise Refused(
            stage=stage,
            code="crashed",
            field="onnx",
            message=f"stage {stage} ended with status {status}: {last}",
            fix="simplify the model, or report this with the model attached",
        )
    result: dict[str, Any] = json.loads(result_path.read_text())
    if "refused" in result:
        raise Refused(**result["refused"])
    return result


def stderr_tail(directory: Path, size: int = 4000) -> str:
    """The last `size` bytes that the child wrote to its stderr."""
    with (directory / "stderr").open("rb") as stderr:
        stderr.seek(max(0, stderr.seek(0, os.SEEK_END) - size))
        return stderr.read().decode(errors="replace")


def _end(process: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return  # the whole group has already ended
    finally:
        process.wait()


def die_with_parent() -> None:
    """A SIGKILL of the worker leaves no stage behind: each generation asks the kernel to follow its parent."""
    ctypes.CDLL(None).prctl(_KILL_WHEN_PARENT_DIES, signal.SIGKILL)


def main() -> None:
    """The child's side: limits first, then the stage; the result appears whole or not at all."""
    function, directory_name, memory_limit, cpu_limit, parent = sys.argv[1:]
    die_with_parent()
    if os.getppid() != int(parent):
        sys.exit("the parent ended before its child began")
    resource.setrlimit(resource.RLIMIT_AS, (int(memory_limit), int(memory_limit)))
    resource.setrlimit(resource.RLIMIT_CPU, (int(cpu_limit) * 2, int(cpu_limit) * 2))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    directory = Path(directory_name)
    module, name = function.split(":")
    stage: Stage = getattr(importlib.import_module(module), name)
    try:
        result = stage(directory, json.loads((directory / "arguments.json").read_text()))
    except Refused as refused:
        result = {"refused": vars(refused)}
    unfinished = directory / "result.unfinished"
    unfinished.write_text(json.dumps(result))
    unfinished.rename(directory / "result.json")


if __name__ == "__main__":
    main()
