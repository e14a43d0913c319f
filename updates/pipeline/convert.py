"""ONNX to float TFLite by onnx2tf's own flatbuffer writer, proved against onnxruntime at once."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from updates.pipeline import child, post_pass
from updates.pipeline.types import Refused

Floats = npt.NDArray[np.float32]
Order = tuple[int, ...]

# Measured: 108 dB on a fully connected autoencoder, more on convolutions. Far below means another network.
MINIMUM_SQNR_DB = 60.0
_PROBES = 8


def sqnr_db(reference: npt.NDArray[np.floating[Any]], other: npt.NDArray[np.floating[Any]]) -> float:
    """Signal to quantization-noise ratio in dB over all values; infinite where both are equal."""
    noise = float(np.square(reference.astype(np.float64) - other).sum())
    signal = float(np.square(reference.astype(np.float64)).sum())
    if noise == 0:
        return float("inf")
    return 10 * float(np.log10(signal / noise)) if signal else float("-inf")


def fp32_outputs(model: bytes, inputs: Floats) -> Floats:
    """The baseline, shape (n, ...): onnxruntime on the CPU with graph optimisation off.

    inputs: (n, ...) in the ONNX model's own layout, without batch. Optimised int8 onnxruntime was measured to give
    other verdicts on other CPUs (saturation without VNNI), so this is used for fp32 alone.
    """
    session = baseline(model)
    name = session.get_inputs()[0].name
    return np.stack([session.run(None, {name: sample[None]})[0][0] for sample in inputs])


def baseline(model: bytes) -> Any:
    """An onnxruntime session as `fp32_outputs` uses it: one thread, no optimisation."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def fp32_latency_ms(
    model: bytes, inputs: Floats, clock: Callable[[], float] = time.perf_counter
) -> tuple[float, float]:
    """(p50, p99) of the baseline on this machine, one sample at a time, after one to warm up. clock: in seconds."""
    session = baseline(model)
    name = session.get_inputs()[0].name
    session.run(None, {name: inputs[:1]})
    taken = []
    for sample in inputs:
        began = clock()
        session.run(None, {name: sample[None]})
        taken.append(1000 * (clock() - began))
    return float(np.quantile(taken, 0.5)), float(np.quantile(taken, 0.99))


def orders(rank: int) -> list[Order]:
    """Ways in which a sample's dimensions (without batch) may have been reordered: kept, or channels moved last."""
    kept = tuple(range(rank))
    return [kept] if rank < 2 else [kept, (*kept[1:], 0)]


def _tflite_outputs(model: bytes, inputs: Floats) -> Floats:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    interpreter = Interpreter(
        model_content=model, num_threads=1, experimental_op_resolver_type=OpResolverType.BUILTIN_REF
    )
    interpreter.allocate_tensors()
    source, sink = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    outputs = []
    for sample in inputs:
        interpreter.set_tensor(source["index"], sample[None])
        interpreter.invoke()
        outputs.append(interpreter.get_tensor(sink["index"])[0].copy())
    return np.stack(outputs)


def find_layout(onnx_model: bytes, tflite_model: bytes, inputs: Floats) -> tuple[Order, Order, float]:
    """(input order, output order, SQNR in dB): which reordering makes the TFLite model compute what the ONNX computes.

    onnx2tf moves channels last by rules of its own; where sizes coincide only the outputs can tell. Each order is of
    a sample's dimensions, as `numpy.transpose` takes it, from ONNX to TFLite. Raises Refused (stage convert).
    """
    from ai_edge_litert.interpreter import Interpreter

    reference = fp32_outputs(onnx_model, inputs)
    shape = tuple(Interpreter(model_content=tflite_model).get_input_details()[0]["shape"][1:])
    best: tuple[Order, Order, float] | None = None
    for input_order in orders(inputs.ndim - 1):
        moved = np.ascontiguousarray(inputs.transpose(0, *(1 + axis for axis in input_order)))
        if moved.shape[1:] != shape:
            continue
        actual = _tflite_outputs(tflite_model, moved)
        for output_order in orders(reference.ndim - 1):
            wanted = reference.transpose(0, *(1 + axis for axis in output_order))
            if wanted.shape == actual.shape and (best is None or sqnr_db(wanted, actual) > best[2]):
                best = (input_order, output_order, sqnr_db(wanted, actual))
    if best is None or best[2] < MINIMUM_SQNR_DB:
        found = "no layout matches" if best is None else f"{best[2]:.1f} dB, at least {MINIMUM_SQNR_DB:g} are needed"
        raise Refused(
            stage="convert",
            code="not_equivalent",
            field="onnx",
            message=f"the converted model does not compute what the ONNX model computes ({found})",
            fix="export the model with plainer operators",
        )
    return best


def stage(directory: Path, arguments: dict[str, Any]) -> dict[str, Any]:
    """Child: checked.onnx -> float.tflite, and the layouts. onnx2tf is a grandchild."""
    output = directory / "converted"
    command = [sys.executable, "-m", "onnx2tf", "-i", str(directory / "checked.onnx"), "-o", str(output), "-n"]
    converted = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, preexec_fn=child.die_with_parent
    )
    model_path = output / "checked_float32.tflite"
    if converted.returncode != 0 or not model_path.exists():
        raise _refusal(converted.stdout + converted.stderr, arguments["operators"])
    model = model_path.read_bytes()
    post_pass.check_operators(model, stage="convert")
    inputs = np.load(directory / "calibration.npy", mmap_mode="r")
    input_order, output_order, agreement = find_layout(
        (directory / "checked.onnx").read_bytes(), model, np.asarray(inputs[:_PROBES])
    )
    (directory / "float.tflite").write_bytes(model)
    return {"input_order": input_order, "output_order": output_order, "sqnr_db": min(agreement, 999.0)}


def _refusal(log: str, operators: list[str]) -> Refused:
    """onnx2tf names the culprit somewhere in its log: the last line that names one of the model's operators tells."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    for line in reversed(lines):
        words = set(line.replace("'", " ").replace("=", " ").replace(",", " ").replace(":", " ").split())
        for operator in operators:
            if operator in words:
                return Refused(
                    stage="convert",
                    code="unsupported_operator",
                    field=operator,
                    message=f"the converter cannot express this operator ({line[-300:]})",
                    fix="replace it by operators that TFLite Micro has",
                )
    return Refused(
        stage="convert",
        code="conversion_failed",
        field="onnx",
        message=f"the converter failed: {lines[-1][-300:] if lines else 'it wrote nothing'}",
        fix="export the model with plainer operators",
    )
