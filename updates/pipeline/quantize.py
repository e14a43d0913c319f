"""Float TFLite to integers by ai-edge-quantizer, on true ranges; weights rounded so that their errors cancel."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from updates.pipeline import calibration, fake_quantization, post_pass, weight_rounding
from updates.pipeline.calibration import Observed
from updates.pipeline.convert import sqnr_db
from updates.pipeline.slices import moved
from updates.pipeline.types import Refused, TargetClass

Floats = npt.NDArray[np.float32]
Ranges = dict[str, list[tuple[float, float]]]

# Bits of activations and weights. int4: weights of CONV_2D and FULLY_CONNECTED; all other operators keep int8.
PRECISIONS = {"int8": (8, 8), "int16x8": (16, 8), "int4": (8, 4)}
GRANULARITIES = ("fc-per-tensor", "fc-per-channel")
# Fewer samples than these: nothing is held out to prove that another rounding is the better one.
_ENOUGH_SAMPLES = 16
_HELD_OUT_EVERY, _MOST_HELD_OUT = 4, 64
# Measured: ranges trimmed for 0.5 dB on 24 samples lost 2.5 dB on others that reach further.
_HEAD_START_DB, _TRIMMED_HANDICAP_DB = 0.3, 1.0
_SHARES = (1.0, 0.98, 0.9)
_MOST_FOR_MOMENTS = 256
_PROBES = 4


def check_target(target: TargetClass) -> None:
    """Raises Refused (stage quantize) for a target class that this pipeline does not build."""
    for name, built in (("runtime", ("tflm",)), ("precision", tuple(PRECISIONS)), ("granularity", GRANULARITIES)):
        given = getattr(target, name)
        if given not in built:
            raise Refused(
                stage="quantize",
                code="unsupported_target",
                field=f"targets.{name}",
                message=f"{given!r} is not built",
                fix=f"use one of {', '.join(map(repr, built))}",
            )
    if target.precision == "int4" and target.granularity == "fc-per-channel":
        raise Refused(
            stage="quantize",
            code="unsupported_target",
            field="targets.granularity",
            message="the kernels run int4 in fully connected layers with one scale a tensor only",
            fix="use 'fc-per-tensor' with int4",
        )


def quantize(model: bytes, ranges: Ranges, target: TargetClass, *, clipped_weights: bool = False) -> bytes:
    """model: float TFLite. ranges: of every computed tensor, by name, and of weights where training fixed them (then
    one pair, or one an output channel). Plain rounding; convolutions per channel.

    The library's own calibration is not used: it is a moving average, which clips (measured: 11.5 against 20.2 dB on a
    keyword spotter), and it runs on XNNPACK. Fully connected layers per tensor are the frugal choice: a scale per
    channel costs 8 bytes of arena a channel (3,984 to 17,360 on the MLPerf autoencoder). clipped_weights: 4-bit scales
    for least squared error (OCTAV) instead of for the largest weight.
    """
    from ai_edge_quantizer import qtyping, quantizer
    from ai_edge_quantizer.algorithm_manager import AlgorithmName

    activation_bits, weight_bits = PRECISIONS[target.precision]
    names, granularities = qtyping.TFLOperationName, qtyping.QuantGranularity
    per_tensor = target.granularity == "fc-per-tensor"
    algorithm = AlgorithmName.OCTAV if clipped_weights else AlgorithmName.MIN_MAX_UNIFORM_QUANT
    maker = quantizer.Quantizer(bytearray(model))
    maker.add_static_config(".*", names.ALL_SUPPORTED, activation_bits, 8)
    if weight_bits == 4:
        maker.add_static_config(".*", names.CONV_2D, activation_bits, 4, algorithm_key=algorithm)
    maker.add_static_config(
        ".*",
        names.FULLY_CONNECTED,
        activation_bits,
        weight_bits,
        granularities.TENSORWISE if per_tensor else granularities.CHANNELWISE,
        algorithm_key=algorithm,
    )
    statistics = _statistics(post_pass.unpack(model), ranges, per_tensor)
    result = maker.quantize(statistics, enable_progress_bar=False, enable_progress_report=False)
    written = bytes(result.quantized_model)
    unpacked = post_pass.unpack(written)
    post_pass.inline_buffers(unpacked, written)
    return post_pass.pack(unpacked)


def _statistics(model: Any, ranges: Ranges, per_tensor: bool) -> dict[str, dict[str, npt.NDArray[np.float32]]]:
    """Ranges as the quantizer takes them: arrays of a tensor's rank, of length 1 or the number of channels."""
    graph = model.subgraphs[0]
    channel_axis = {}
    for operator in graph.operators:
        kind = post_pass.operator_name(model, operator)
        if kind in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"):
            whole = kind == "FULLY_CONNECTED" and per_tensor
            channel_axis[int(operator.inputs[1])] = None if whole else 3 if kind == "DEPTHWISE_CONV_2D" else 0
    statistics = {}
    for index, tensor in enumerate(graph.tensors):
        known = ranges.get(tensor.name.decode())
        if known is None or (index not in channel_axis and len(known) != 1):
            continue
        shape = [1] * (0 if tensor.shape is None else len(tensor.shape))
        axis = channel_axis.get(index)
        if axis is not None:
            shape[axis] = int(tensor.shape[axis])
        lows, highs = np.array(known, np.float32).T
        if axis is None:
            lows, highs = lows.min(), highs.max()
        statistics[tensor.name.decode()] = {
            name: np.broadcast_to(values, (int(np.prod(shape)),)).reshape(shape)
            for name, values in (("min", lows), ("max", highs))
        }
    return statistics


def best(
    model: bytes, inputs: Floats, observed: Observed, target: TargetClass, trained: Ranges | None = None
) -> tuple[bytes, str]:
    """(image, how it was made): the candidate with the most SQNR on samples that the rounding never saw.

    trained: ranges that training fixed; they win. Each candidate has to beat the plainer ones by more than chance:
    true ranges are safe where the field shows more than the calibration data, and error feedback is least error by
    construction on the samples that it saw.
    """
    unseen = inputs[held_out(len(inputs))][:_MOST_HELD_OUT]
    probes = unseen if len(unseen) else inputs
    shares = _SHARES if target.precision == "int8" and len(unseen) and not trained else (1.0,)
    handicapped: list[tuple[float, str, bytes]] = []
    for share in shares:
        for clipped in (False, True) if target.precision == "int4" else (False,):
            named = f"ranges of {share:.0%}" + (", clipped weights" if clipped else "")
            plain = quantize(model, observed.ranges(share) | (trained or {}), target, clipped_weights=clipped)
            handicap = _TRIMMED_HANDICAP_DB if share < 1 else 0.0
            handicapped.append((handicap, f"nearest, {named}", plain))
            if observed.moments:
                fed_back = weight_rounding.reround(plain, model, observed.moments)
                handicapped.append((handicap - _HEAD_START_DB, f"error feedback, {named}", fed_back))
    if len(handicapped) == 1:
        return handicapped[0][2], handicapped[0][1]
    wanted = decisive_outputs(model, probes)
    scores = [sqnr_db(wanted, decisive_outputs(image, probes)) - handicap for handicap, _, image in handicapped]
    _, name, image = handicapped[int(np.argmax(scores))]
    return image, name


def held_out(n: int) -> npt.NDArray[np.bool_]:
    """Which of n samples judge the roundings: every fourth, since a file's order may mean something; of few, none."""
    if n < _ENOUGH_SAMPLES:
        return np.zeros(n, np.bool_)
    held: npt.NDArray[np.bool_] = np.arange(n) % _HELD_OUT_EVERY == _HELD_OUT_EVERY - 1
    return held


def decisive_outputs(model: bytes, inputs: Floats) -> Floats:
    """What a TFLite model, float or integer, decides by, shape (n, ...), dequantized, in LiteRT's reference kernels.

    Before a closing SOFTMAX: behind it, the few samples that are nearly undecided make almost all of the noise.
    """
    interpreter = calibration.float_interpreter(model)
    unpacked = post_pass.unpack(model)
    last = unpacked.subgraphs[0].operators[-1]
    closing = post_pass.operator_name(unpacked, last) == "SOFTMAX"
    sink = int(last.inputs[0] if closing else last.outputs[0])
    details = {one["index"]: one for one in interpreter.get_tensor_details()}[sink]
    source = interpreter.get_input_details()[0]
    found = []
    for sample in inputs:
        interpreter.set_tensor(source["index"], quantized(sample[None], source["dtype"], *source["quantization"]))
        interpreter.invoke()
        found.append(interpreter.get_tensor(sink)[0].copy())
    raw = np.stack(found).astype(np.float32)
    scale, zero_point = details["quantization"]
    return raw if details["dtype"] is np.float32 else ((raw - zero_point) * np.float32(scale)).astype(np.float32)


def quantized(values: Floats, dtype: Any, scale: float, zero_point: int) -> npt.NDArray[Any]:
    """As the node quantizes its input: rounded half to even, clipped to the type. Floats stay as they are."""
    if np.dtype(dtype).kind == "f":
        return values
    limits = np.iinfo(dtype)
    levels: npt.NDArray[Any] = np.clip(np.round(values / scale) + zero_point, limits.min, limits.max).astype(dtype)
    return levels


def observe(model: bytes, inputs: Floats) -> Observed:
    """Ranges over all samples, moments over at most 256 of those not held out (none where nothing is held out)."""
    unseen = held_out(len(inputs))
    fitted = np.zeros(len(inputs), np.bool_)
    if unseen.any():
        rest = np.flatnonzero(~unseen)
        fitted[rest[:: -(-len(rest) // _MOST_FOR_MOMENTS)]] = True
    return calibration.observe(model, inputs, for_moments=fitted)


def calibrate_stage(directory: Path, arguments: dict[str, Any]) -> dict[str, Any]:
    """Child: float.tflite and calibration.npy -> fused.tflite, observed.npz, and trained-ranges.json where training
    fixed some. All target classes of a build share them."""
    inputs = np.load(directory / "calibration.npy")
    fused = post_pass.fuse_fully_connected_relu((directory / "float.tflite").read_bytes())
    known = json.loads((directory / "trained.json").read_text())
    trained = {}
    if known["ranges"] or known["scales"]:
        model = (directory / "checked.onnx").read_bytes()
        order = tuple(arguments["input_order"])
        trained = fake_quantization.tensors_of_the_image(
            model, fused, inputs[:_PROBES], order, fake_quantization.Trained(**known)
        )
    (directory / "trained-ranges.json").write_text(json.dumps(trained))
    (directory / "fused.tflite").write_bytes(fused)
    with _refused_by_the_quantizer():
        calibration.save(observe(fused, moved(inputs, arguments["input_order"])), directory / "observed.npz")
    return {"trained_tensors": len(trained)}


def stage(directory: Path, arguments: dict[str, Any]) -> dict[str, Any]:
    """Child: what `calibrate_stage` wrote -> quantized.tflite, for `arguments["target"]`."""
    target = TargetClass(**arguments["target"])
    inputs = moved(np.load(directory / "calibration.npy"), arguments["input_order"])
    trained = json.loads((directory / "trained-ranges.json").read_text())
    with _refused_by_the_quantizer():
        observed = calibration.load(directory / "observed.npz")
        image, rounding = best((directory / "fused.tflite").read_bytes(), inputs, observed, target, trained)
    (directory / "quantized.tflite").write_bytes(image)
    return {"rounding": rounding}


@contextmanager
def _refused_by_the_quantizer() -> Iterator[None]:
    try:
        yield
    except (ValueError, RuntimeError, NotImplementedError) as error:
        raise Refused(
            stage="quantize",
            code="not_quantizable",
            field="onnx",
            message=f"the quantizer refuses it: {str(error).strip().splitlines()[0][:300]}",
            fix="replace the operator that it names",
        ) from error
