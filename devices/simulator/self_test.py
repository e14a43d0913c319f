"""The golden self-test of docs/self-test.md, really run in TFLM, once for each image.

As a program (`python -m devices.simulator.self_test`) it reads an image and prints the outcome as JSON. The interpreter
aborts its process on some bad images, so each image gets a child of its own, one child at a time; 300 nodes with the
same image share its outcome (about 0.5 s a child).
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import resource
import sys
import tempfile
from dataclasses import dataclass
from typing import Any

_WINDOWS = 4
_ARENA_BYTES = 16 << 20  # the arena on the host does not decide the outcome, only whether there is one
_CHILD_SECONDS = 60
_CHILD_BYTES = 4 << 30
_ARENA_TOTAL = re.compile(rb"Arena allocation total (\d+) bytes")


@dataclass(frozen=True)
class Outcome:
    """`digest`: 8 bytes. `output_bytes`: of one output tensor. `arena_bytes`: what the interpreter uses, with its 64-bit
    pointers somewhat more than on a node; 0: it did not say."""

    digest: bytes
    output_bytes: int
    arena_bytes: int = 0


class SelfTestBench:
    """Runs images for all nodes of the process."""

    def __init__(self) -> None:
        self._runs: dict[bytes, asyncio.Task[Outcome | None]] = {}
        self._one_child = asyncio.Lock()

    async def run(self, image: bytes) -> Outcome | None:
        """None where the interpreter refuses the image, hangs or dies."""
        digest = hashlib.sha256(image).digest()
        if digest not in self._runs:
            self._runs[digest] = asyncio.create_task(self._run_child(image))
        return await asyncio.shield(self._runs[digest])

    async def _run_child(self, image: bytes) -> Outcome | None:
        async with self._one_child:
            child = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "devices.simulator.self_test",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
            )
            try:
                answer, _ = await asyncio.wait_for(child.communicate(image), _CHILD_SECONDS)
            except TimeoutError:
                child.kill()
                await child.wait()
                return None
        if child.returncode != 0:
            return None
        fields = json.loads(answer)
        return Outcome(bytes.fromhex(fields["digest"]), fields["output_bytes"], fields["arena_bytes"])


def golden_input(window: int, size: int) -> bytes:
    """The raw input tensor of a window (0..3), `size` bytes: SHA-256 over a label, the window and a rising counter."""
    blocks = (b"modelfleet-golden" + bytes([window]) + counter.to_bytes(4, "big") for counter in range(-(-size // 32)))
    return b"".join(hashlib.sha256(block).digest() for block in blocks)[:size]


def golden_outcome(image: bytes) -> Outcome:
    """Run the image on its 4 golden inputs. May raise or end the process on a bad image."""
    import numpy  # here and not above: the parent never needs either, and both are large
    from tflite_micro import runtime

    interpreter = runtime.Interpreter.from_bytes(image, arena_size=_ARENA_BYTES)
    details = interpreter.get_input_details(0)
    shape, kind = tuple(details["shape"]), numpy.dtype(details["dtype"])
    size = int(numpy.prod(shape)) * kind.itemsize
    outputs = []
    for window in range(_WINDOWS):
        interpreter.set_input(numpy.frombuffer(golden_input(window, size), kind).reshape(shape), 0)
        interpreter.invoke()
        outputs.append(interpreter.get_output(0).tobytes())
    return Outcome(hashlib.sha256(b"".join(outputs)).digest()[:8], len(outputs[0]), _arena_used(interpreter))


def _arena_used(interpreter: Any) -> int:
    """It tells file descriptor 2 alone."""
    kept = os.dup(2)
    with tempfile.TemporaryFile() as heard:
        os.dup2(heard.fileno(), 2)
        try:
            interpreter.print_allocations()
        finally:
            os.dup2(kept, 2)
            os.close(kept)
        heard.seek(0)
        found = _ARENA_TOTAL.search(heard.read())
    return int(found[1]) if found else 0


def main() -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (_CHILD_SECONDS, _CHILD_SECONDS))
    resource.setrlimit(resource.RLIMIT_AS, (_CHILD_BYTES, _CHILD_BYTES))
    # Buffered until the run has ended: the interpreter itself may write to standard output.
    outcome = golden_outcome(sys.stdin.buffer.read())
    json.dump(
        {"digest": outcome.digest.hex(), "output_bytes": outcome.output_bytes, "arena_bytes": outcome.arena_bytes},
        sys.stdout,
    )


if __name__ == "__main__":
    main()
