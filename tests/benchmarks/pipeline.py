"""From upload to verdict for five profiles, all precisions, N evaluation samples: time, memory, noise and arena.

Networks: six kinds from `tests/networks.py`, the largest of them 300 KB as an image; with `--models DIR` also every
`NAME_fp32.onnx` there, against `NAME_int8.tflite` on the same inputs: synthetic, spread over that file's input range, but
sounds for an anomaly detector (ad01), since noise spread over its range is nothing that it was trained to reconstruct.
Those that MLPerf Tiny publishes are held to a noise that each must reach. Where no published file is given, the peer is
the quantization library as it comes.
"""

from __future__ import annotations

import resource
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx

from tests.benchmarks._machine_sounds import log_mel_frames
from tests.networks import KINDS, npz, recurrent, smooth
from updates.pipeline import child
from updates.pipeline.bench import SIDE_BY_SIDE
from updates.pipeline.build import build
from updates.pipeline.choice import candidates
from updates.pipeline.types import BuildRequest, Profile, Refused, ValidationLimits

LIMITS = {
    "upload_to_verdict_s": ("<=", 60.0),
    "peak_rss_mb": ("<=", 1536.0),
    "sqnr_margin_db_min": (">=", 0.0),
    "arena_over_tflm_max": ("<=", 1.10),
    "refused_s_max": ("<=", 60.0),
}
# SQNR of int8 in dB, fully connected layers with one scale a tensor; "_per_channel" with one a channel.
_SQNR_LIMITS = {
    "ad01": {"ad01_sqnr_db": (">=", 31.5), "ad01_per_channel_sqnr_db": (">=", 40.0)},
    "kws_dscnn": {"kws_dscnn_sqnr_db": (">=", 19.5)},
    "resnet8": {"resnet8_sqnr_db": (">=", 18.5)},
    "vww96": {"vww96_sqnr_db": (">=", 36.0)},
}
PROFILES = (
    Profile("m4-roomy", sram_bytes=512 * 1024, slot_bytes=512 * 1024),
    Profile("m4-small", sram_bytes=64 * 1024),
    Profile("m4-reference", kernel_library="reference", sram_bytes=256 * 1024),
    Profile("m7-cached", core="cortex-m7", clock_hz=216_000_000, sram_bytes=320 * 1024, slot_bytes=512 * 1024),
    Profile("m33-hurried", core="cortex-m33", latency_deadline_ms=100, sram_bytes=256 * 1024),
)
CALIBRATION = 128
_CHILD = "tests.benchmarks.pipeline"


@dataclass(frozen=True)
class _Case:
    name: str
    onnx: bytes
    calibration: npt.NDArray[np.float32]
    evaluation: npt.NDArray[np.float32]
    published: bytes | None = None


def run(n: int | None = None, models: Path | None = None) -> dict[str, float]:
    samples = n or 200
    cases = [
        _Case(network.name, network.onnx, network.inputs(CALIBRATION, seed=1), network.inputs(samples, seed=2))
        for network in (kind() for kind in KINDS if kind is not recurrent)
    ]
    if models is not None:
        cases += [_from_files(path, samples) for path in sorted(models.glob("*_fp32.onnx"))]
    rows = [_measure(case) for case in cases]
    print(_table(rows))
    refused_s = _refusal()
    # What this process holds, and as many of its largest child as run side by side.
    own, child_kib = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    peak = (own + SIDE_BY_SIDE * child_kib) / 1024
    return {
        "upload_to_verdict_s": max(row["seconds"] for row in rows),
        "upload_to_verdict_cpu_s": max(row["cpu_seconds"] for row in rows),
        "peak_rss_mb": peak,
        "sqnr_margin_db_min": min(row["sqnr"] - row["peer"] for row in rows),
        **{f"{row['name']}_sqnr_db": row["sqnr"] for row in rows if row["published"]},
        **{f"{row['name']}_per_channel_sqnr_db": row["per_channel"] for row in rows if row["published"]},
        "arena_over_tflm_max": max(row["arena_over_tflm"] for row in rows if row["convolutions"]),
        "refused_s_max": refused_s,
    }


def limits_with(models: Path) -> dict[str, tuple[str, float]]:
    """More limits, of the networks that are there."""
    there = {path.name.removesuffix("_fp32.onnx") for path in models.glob("*_fp32.onnx")}
    return {name: limit for network in sorted(there) for name, limit in _SQNR_LIMITS.get(network, {}).items()}


def _measure(case: _Case) -> dict[str, float]:
    request = BuildRequest(
        onnx=case.onnx,
        calibration=npz(inputs=case.calibration),
        evaluation=npz(inputs=case.evaluation),
        targets=candidates(),
        profiles=PROFILES,
        limits=ValidationLimits(),
    )
    began, busy = time.monotonic(), _children_cpu_s()
    built = build(request, lambda stage, fraction: None)
    seconds, busy = time.monotonic() - began, _children_cpu_s() - busy
    noise = {
        f"{image.target.precision} {image.target.granularity}": built.reports[image.digest].slices[0].sqnr_db
        for image in built.images
    }
    first = built.images[0]
    over = [
        fit.arena_bytes / image.arena_bytes
        for image in built.images
        if image.target.precision != "int4"
        for fit in built.fits[image.digest]
    ]
    if min(over) < 1:
        raise AssertionError(f"{case.name}: a verdict allows less arena than TFLM needs")
    return {
        "name": case.name,  # type: ignore[dict-item]
        "seconds": seconds,
        "cpu_seconds": busy,
        "bytes": len(first.data),
        "arena": first.arena_bytes,
        "arena_over_tflm": max(over),
        "convolutions": float("CONV_2D" in first.operators),
        "sqnr": noise["int8 fc-per-tensor"],
        "per_channel": noise["int8 fc-per-channel"],
        "int16x8": noise.get("int16x8 fc-per-tensor", float("nan")),
        "int4": noise.get("int4 fc-per-tensor", float("nan")),
        "peer": _peer(case),
        "published": float(case.published is not None),
        "fitting": sum(choice.digest is not None for choice in built.choices),
    }


def _children_cpu_s() -> float:
    """What a machine shared with others would take alone is nearer to this than to the clock on the wall."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _table(rows: list[dict[str, float]]) -> str:
    columns = ("s", "cpu s", "bytes", "arena", "x TFLM", "int8", "fc/ch", "16x8", "int4")
    widths = (6, 6, 8, 8, 7, 6, 6, 6, 6)
    head = f"{'network':18} " + " ".join(f"{name:>{width}}" for name, width in zip(columns, widths, strict=True))
    lines = [head + f" {'peer':>6} dB  fits of {len(PROFILES)}"]
    for row in rows:
        lines.append(
            f"{row['name']!s:18} {row['seconds']:6.1f} {row['cpu_seconds']:6.1f} {row['bytes']:8.0f} {row['arena']:8.0f} "
            f"{row['arena_over_tflm']:7.3f} {row['sqnr']:6.1f} {row['per_channel']:6.1f} {row['int16x8']:6.1f} "
            f"{row['int4']:6.1f} {row['peer']:6.1f} {'published' if row['published'] else 'library'}  {row['fitting']:.0f}"
        )
    return "\n".join(lines)


def _refusal() -> float:
    network, began = recurrent(), time.monotonic()
    arrays = npz(inputs=network.inputs(32, seed=1))
    try:
        build(BuildRequest(network.onnx, arrays, arrays, profiles=PROFILES), lambda stage, fraction: None)
    except Refused as refused:
        seconds = time.monotonic() - began
        print(f"{network.name}: refused after {seconds:.1f} s: {refused}")
        return seconds
    return time.monotonic() - began


def _from_files(path: Path, samples: int) -> _Case:
    """A network and its published int8 file; inputs within what that file's input type can hold."""
    name = path.name.removesuffix("_fp32.onnx")
    published = path.with_name(f"{name}_int8.tflite")
    graph = onnx.load_model(path).graph
    constants = {tensor.name for tensor in graph.initializer}
    source = next(value for value in graph.input if value.name not in constants)
    shape = tuple(one.dim_value for one in source.type.tensor_type.shape.dim)[1:]
    data = published.read_bytes() if published.exists() else None
    if name == "ad01":
        return _Case(
            name, path.read_bytes(), log_mel_frames(CALIBRATION, seed=1), log_mel_frames(samples, seed=2), data
        )
    low, high = _input_range(data) if data is not None else (-3.0, 3.0)
    centre, reach = (low + high) / 2, (high - low) / 2
    both = [
        np.clip(centre + smooth(count, shape, seed=seed) * reach / 3, low, high).astype(np.float32)
        for count, seed in ((CALIBRATION, 1), (samples, 2))
    ]
    return _Case(name, path.read_bytes(), both[0], both[1], data)


def _input_range(image: bytes) -> tuple[float, float]:
    from updates.pipeline.post_pass import unpack

    graph = unpack(image).subgraphs[0]
    known = graph.tensors[int(graph.inputs[0])].quantization
    scale, zero = float(known.scale[0]), int(known.zeroPoint[0])
    return (-128 - zero) * scale, (127 - zero) * scale


def _peer(case: _Case) -> float:
    """SQNR in dB of the published image, or of the library's own int8, in TFLM, in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="modelfleet-benchmark-") as name:
        directory = Path(name)
        (directory / "model.onnx").write_bytes(case.onnx)
        for part, inputs in (("calibration", case.calibration), ("evaluation", case.evaluation)):
            (directory / f"{part}.npz").write_bytes(npz(inputs=inputs))
        model = child.run("check", "updates.pipeline.check:stage", directory, {})
        layout = child.run("convert", "updates.pipeline.convert:stage", directory, {"operators": model["operators"]})
        if case.published is not None:
            (directory / "image.tflite").write_bytes(case.published)
        return float(child.run("judge", f"{_CHILD}:peer_stage", directory, layout)["sqnr_db"])


def peer_stage(directory: Path, arguments: dict[str, list[int]]) -> dict[str, float]:
    """Child of the benchmark: what `_peer` measures."""
    from ai_edge_quantizer import quantizer, recipe

    from updates.pipeline import judge, post_pass
    from updates.pipeline.calibration import float_interpreter
    from updates.pipeline.convert import fp32_outputs, sqnr_db

    def moved(inputs: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        return np.ascontiguousarray(inputs.transpose(0, *(1 + axis for axis in arguments["input_order"])))

    evaluation = np.load(directory / "inputs-0.npy")
    wanted = fp32_outputs((directory / "checked.onnx").read_bytes(), evaluation)
    wanted = wanted.transpose(0, *(1 + axis for axis in arguments["output_order"]))
    path = directory / "image.tflite"
    if path.exists():
        image = path.read_bytes()
    else:
        model = post_pass.fuse_fully_connected_relu((directory / "float.tflite").read_bytes())
        signatures = float_interpreter(model).get_signature_list()
        signature = next(iter(signatures))
        source = signatures[signature]["inputs"][0]
        maker = quantizer.Quantizer(bytearray(model), recipe.static_wi8_ai8())
        samples = [{source: sample[None]} for sample in moved(np.load(directory / "calibration.npy"))]
        made = maker.quantize(maker.calibrate({signature: samples}))
        image = post_pass.post_pass(bytes(made.quantized_model), alignment=16)
    given = judge.quantized_outputs(image, judge.MAXIMUM_ARENA_BYTES, moved(evaluation))
    return {"sqnr_db": min(sqnr_db(wanted, given.reshape(wanted.shape)), 999.0)}
