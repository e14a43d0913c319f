"""Small weight images for patch tests: a tensor table, scales, biases and int8 rows, and ways of changing them."""

from __future__ import annotations

import numpy as np

from updates.patches.layout import Layout, Tensor

SHAPES = ((16, 27), (24, 144), (10, 64))
COLUMN_SHAPES = ((9, 24),)


def image(seed: int) -> tuple[bytes, Layout]:
    """About 5.5 KB: 32 bytes of head, then for each tensor its scales, biases and weights."""
    random = np.random.default_rng(seed)
    parts, tensors, at = [b"WIMG" + bytes(28)], [], 32
    for rows, columns in SHAPES + COLUMN_SHAPES:
        channels = rows if rows != 9 else columns
        kind = "i8" if rows != 9 else "i8dw"
        blocks = (
            ("f32", 1, channels, random.uniform(0.001, 0.01, channels).astype("<f4").tobytes()),
            ("i32", 1, channels, random.integers(-3000, 3000, channels).astype("<i4").tobytes()),
            (kind, rows, columns, random.normal(0, 30, rows * columns).clip(-127, 127).astype(np.int8).tobytes()),
        )
        for name, height, width, data in blocks:
            tensors.append(Tensor(at, len(data), name, height, width))  # type: ignore[arg-type]
            parts.append(data)
            at += len(data)
    return b"".join(parts), tuple(tensors)


def fine_tuned(base: bytes, layout: Layout, seed: int, strength: float = 0.4) -> bytes:
    """Every sort of tensor moves a little: weights by low-rank steps, biases and scales by a common factor."""
    random = np.random.default_rng(seed)
    target = bytearray(base)
    for tensor in layout:
        place = slice(tensor.offset, tensor.offset + tensor.size)
        if tensor.kind in ("i8", "i8dw"):
            old = np.frombuffer(base[place], np.int8).reshape(tensor.rows, tensor.columns)
            step = np.outer(random.normal(0, 1, tensor.rows), random.normal(0, strength, tensor.columns))
            target[place] = np.rint(old + step).clip(-127, 127).astype(np.int8).tobytes()
        elif tensor.kind == "i32":
            target[place] = np.rint(np.frombuffer(base[place], "<i4") * 1.07).astype("<i4").tobytes()
        else:
            target[place] = (np.frombuffer(base[place], "<f4") * np.float32(1.02)).astype("<f4").tobytes()
    return bytes(target)
