"""One image of one target class: quantized, packed, and judged by TFLM."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from updates.pipeline import arena, child, latency
from updates.pipeline.post_pass import operators
from updates.pipeline.types import Image, TargetClass, io_hash

KERNEL_LIBRARIES = ("reference", "cmsis-nn")


def make_image(
    room: Path,
    target: TargetClass,
    layout: dict[str, Any],
    slices: list[int],
    preprocessing: str,
    begin: Callable[[str], None],
) -> Image:
    """In a room that sees what the calibration stage wrote; it also shows the image the slices (int8-<i>.npy). Raises Refused."""
    begin("quantize")
    child.run("quantize", "updates.pipeline.quantize:stage", room, layout | {"target": asdict(target)})
    begin("post_pass")
    child.run("post_pass", "updates.pipeline.post_pass:stage", room, {"alignment": target.alignment})
    return judge_image(room, target, (room / "image.tflite").read_bytes(), layout, slices, preprocessing, begin)


def judge_image(
    room: Path,
    target: TargetClass,
    data: bytes,
    layout: dict[str, Any],
    slices: list[int],
    preprocessing: str,
    begin: Callable[[str], None],
) -> Image:
    """Of bytes that are there: what TFLM says of them, and what they decide on the slices. Raises Refused."""
    begin("judge")
    (room / "image.tflite").write_bytes(data)
    facts = child.run("judge", "updates.pipeline.judge:stage", room, layout | {"slices": slices})
    return described(data, target, facts, list(operators(data)), preprocessing=preprocessing)


def described(data: bytes, target: TargetClass, facts: dict[str, Any], used: list[str], *, preprocessing: str) -> Image:
    """facts: as `judge.facts` found them."""
    shapes = {name: tuple(facts[name]) for name in ("input_shape", "output_shape")}
    return Image(
        target=target,
        data=data,
        digest=hashlib.sha256(data).hexdigest(),
        operators=tuple(used),
        work=latency.work(data),
        io_hash=io_hash(
            shapes["input_shape"], facts["input_type"], shapes["output_shape"], facts["output_type"], preprocessing
        ),
        arena_estimates={library: arena.plan(data, kernel_library=library).total_bytes for library in KERNEL_LIBRARIES},
        **(facts | shapes),
    )
