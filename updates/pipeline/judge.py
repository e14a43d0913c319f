"""TFLite Micro itself says whether an image runs, in how little memory, and what it computes.

For int8 its x86-64 build was measured bit-exact with Cortex-M4, reference kernels and CMSIS-NN, on 26 of 26 networks.
It may end the whole process on a bad model or a tiny arena: call these in a child only.
"""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from updates.pipeline import self_test
from updates.pipeline.quantize import quantized
from updates.pipeline.slices import moved
from updates.pipeline.types import Refused

MAXIMUM_ARENA_BYTES = 16 * 1024 * 1024
ARENA_STEP = 16
# Below this the interpreter's constructor was seen to crash: no network is that small.
_SMALLEST_ARENA = 256
_MISSING_OPERATOR = re.compile(r"Didn't find op for builtin opcode '(\w+)'")


def interpreter(image: bytes, arena_bytes: int) -> Any:
    from tflite_micro.python.tflite_micro import runtime

    return runtime.Interpreter.from_bytes(image, arena_size=arena_bytes)


def _runs(image: bytes, arena_bytes: int) -> bool:
    """Tried in a fork: too small an arena may crash instead of failing, and that too is a no."""
    pid = os.fork()
    if pid == 0:
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            trial = interpreter(image, arena_bytes)
            details = trial.get_input_details(0)
            trial.set_input(np.zeros(details["shape"], details["dtype"]), 0)
            trial.invoke()
        except (RuntimeError, ValueError):
            os._exit(1)
        os._exit(0)
    return os.waitpid(pid, 0)[1] == 0


def minimum_arena(image: bytes) -> int:
    """The smallest arena, a multiple of 16 bytes, in which the image allocates and runs once.

    What TFLM reports as used is too little to run in (measured: 16 % too little on an autoencoder, 29 % on a toy):
    the planner needs room for itself. So this is found by trying. Raises Refused (stage judge).
    """
    low, high = _SMALLEST_ARENA, 4096
    while not _runs(image, high):
        low, high = high, high * 2
        if high > MAXIMUM_ARENA_BYTES:
            raise _refusal(image)
    while high - low > ARENA_STEP:
        middle = (low + high) // 2 // ARENA_STEP * ARENA_STEP
        if _runs(image, middle):
            high = middle
        else:
            low = middle
    return high


def _refusal(image: bytes) -> Refused:
    """TFLM explains itself on file descriptor 2 only: a fork says it again into a file."""
    with tempfile.TemporaryFile() as heard:
        pid = os.fork()
        if pid == 0:
            os.dup2(heard.fileno(), 2)
            try:
                interpreter(image, MAXIMUM_ARENA_BYTES).invoke()
            except (RuntimeError, ValueError):
                os._exit(1)
            os._exit(0)
        os.waitpid(pid, 0)
        heard.seek(0)
        said = heard.read().decode(errors="replace").strip()
    tail = " ".join(said.split())[-300:] or "it crashed"
    missing = _MISSING_OPERATOR.search(said)
    if missing:
        return Refused(
            stage="judge",
            code="unsupported_operator",
            field=missing[1],
            message="TFLite Micro has no such operator",
            fix="replace it by operators that TFLite Micro has",
        )
    return Refused(
        stage="judge",
        code="does_not_run",
        field="image",
        message=f"TFLite Micro cannot run it in {MAXIMUM_ARENA_BYTES} bytes: {tail}",
        fix="make the model smaller or plainer",
    )


def quantized_outputs(image: bytes, arena_bytes: int, inputs: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """What the node would decide, shape (n, ...), dequantized. inputs: (n, ...) floats in the image's own layout."""
    trial = interpreter(image, arena_bytes)
    scale, zero_point = _quantization(trial.get_input_details(0))
    output_scale, output_zero_point = _quantization(trial.get_output_details(0))
    outputs = []
    for sample in quantized(inputs, trial.get_input_details(0)["dtype"], scale, zero_point):
        trial.set_input(sample[None], 0)
        trial.invoke()
        outputs.append(trial.get_output(0)[0].copy())
    return ((np.stack(outputs).astype(np.float32) - output_zero_point) * np.float32(output_scale)).astype(np.float32)


def _quantization(details: dict[str, Any]) -> tuple[float, int]:
    parameters = details["quantization_parameters"]
    return float(parameters["scales"][0]), int(parameters["zero_points"][0])


def facts(image: bytes) -> dict[str, Any]:
    """Everything of `Image` that only running can tell. Raises Refused (stage judge)."""
    arena_bytes = minimum_arena(image)
    trial = interpreter(image, arena_bytes)
    found: dict[str, Any] = {"arena_bytes": arena_bytes}
    for side, details in (("input", trial.get_input_details(0)), ("output", trial.get_output_details(0))):
        if details["dtype"] not in (np.int8, np.int16):
            raise Refused(
                stage="judge",
                code="not_integer",
                field=side,
                message=f"the {side} is {details['dtype'].__name__}, neither int8 nor int16",
                fix="report this with the model attached",
            )
        found[f"{side}_shape"] = [int(size) for size in details["shape"]]
        found[f"{side}_type"] = details["dtype"].__name__
        found[f"{side}_scale"], found[f"{side}_zero_point"] = _quantization(details)
    shape, dtype = found["input_shape"], np.dtype(found["input_type"]).newbyteorder("<")

    def run(golden: bytes) -> bytes:
        trial.set_input(np.frombuffer(golden, dtype).reshape(shape), 0)
        trial.invoke()
        return bytes(trial.get_output(0).tobytes())

    found["self_test_digest"] = self_test.digest(run, int(np.prod(shape)) * dtype.itemsize)
    return found


def stage(directory: Path, arguments: dict[str, Any]) -> dict[str, Any]:
    """Child: image.tflite -> its facts, and int8-<i>.npy in image layout for each index of `slices`."""
    found = facts((directory / "image.tflite").read_bytes())
    decide_stage(directory, arguments | {"arena_bytes": found["arena_bytes"]})
    return found


def decide_stage(directory: Path, arguments: dict[str, Any]) -> dict[str, Any]:
    """Child: image.tflite -> int8-<i>.npy for each index of `slices`, in an arena of `arena_bytes`."""
    image = (directory / "image.tflite").read_bytes()
    for index in arguments["slices"]:
        inputs = moved(np.load(directory / f"inputs-{index}.npy"), arguments["input_order"])
        np.save(directory / f"int8-{index}.npy", quantized_outputs(image, arguments["arena_bytes"], inputs))
    return {}
