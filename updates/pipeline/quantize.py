"""Float TFLite to int8 by ai-edge-quantizer, on true ranges and with fully connected layers per tensor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from updates.pipeline import post_pass
from updates.pipeline.types import Refused, TargetClass

SUPPORTED = (TargetClass.runtime, TargetClass.precision, TargetClass.granularity)


def check_target(target: TargetClass) -> None:
    """Raises Refused (stage quantize) for a target class that this pipeline does not build."""
    for name, wanted in zip(("runtime", "precision", "granularity"), SUPPORTED, strict=True):
        given = getattr(target, name)
        if given != wanted:
            raise Refused(
                stage="quantize",
                code="unsupported_target",
                field=f"targets.{name}",
                message=f"{given!r} is not built",
                fix=f"use {wanted!r}",
            )


def quantize(model: bytes, inputs: npt.NDArray[np.float32]) -> bytes:
    """inputs: (n, ...) in the TFLite model's layout. Convolutions per channel, fully connected per tensor.

    Two things differ from the library's defaults. Its calibration is a moving average, which clips (measured: 11.5
    against 20.2 dB on a keyword spotter). And it calibrates on XNNPACK, whose float results differ between CPUs; the
    reference kernels give the same bytes everywhere, at 3 ms more a sample on a 12-million-MAC network. Per tensor,
    since a scale per channel costs 8 bytes of arena a channel (3,984 to 17,360 on the MLPerf autoencoder).
    """
    from ai_edge_litert.interpreter import Interpreter, OpResolverType
    from ai_edge_quantizer import calibrator, qtyping, quantizer
    from ai_edge_quantizer.utils import qsv_utils

    interpreter = Interpreter(
        model_content=model,
        num_threads=1,
        experimental_op_resolver_type=OpResolverType.BUILTIN_REF,
        experimental_preserve_all_tensors=True,
    )
    interpreter.allocate_tensors()
    signatures = interpreter.get_signature_list()
    signature = next(iter(signatures))
    input_name = signatures[signature]["inputs"][0]
    maker = quantizer.Quantizer(bytearray(model))
    maker.add_static_config(".*", qtyping.TFLOperationName.ALL_SUPPORTED, 8, 8)
    maker.add_static_config(".*", qtyping.TFLOperationName.FULLY_CONNECTED, 8, 8, qtyping.QuantGranularity.TENSORWISE)
    ranges = calibrator.Calibrator(model, num_threads=1, qsv_update_func=qsv_utils.min_max_update)
    ranges._tfl_interpreter = interpreter  # no public way to choose the kernels; the library is pinned
    ranges.calibrate({signature: [{input_name: sample[None]} for sample in inputs]}, maker._recipe_manager)
    result = maker.quantize(ranges.get_model_qsvs(), enable_progress_bar=False, enable_progress_report=False)
    return bytes(result.quantized_model)


def stage(directory: Path, arguments: dict[str, Any]) -> dict[str, Any]:
    """Child: float.tflite and calibration.npy -> quantized.tflite."""
    inputs = np.load(directory / "calibration.npy")
    moved = np.ascontiguousarray(inputs.transpose(0, *(1 + axis for axis in arguments["input_order"])))
    fused = post_pass.fuse_fully_connected_relu((directory / "float.tflite").read_bytes())
    try:
        quantized = quantize(fused, moved)
    except (ValueError, RuntimeError, NotImplementedError) as error:
        raise Refused(
            stage="quantize",
            code="not_quantizable",
            field="onnx",
            message=f"the quantizer refuses it: {str(error).strip().splitlines()[0][:300]}",
            fix="replace the operator that it names",
        ) from error
    (directory / "quantized.tflite").write_bytes(quantized)
    return {}
