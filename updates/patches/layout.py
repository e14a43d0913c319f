"""Where the tensors of a model image lie: from the tensor table of a .tflite file, or from a layout file in JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

TensorKind = Literal["i8", "i8dw", "i32", "f32"]
KINDS: tuple[TensorKind, ...] = ("i8", "i8dw", "i32", "f32")


class LayoutInvalid(ValueError):
    """Not a tensor table, or not one of this image; the message names the tensor and the field."""


@dataclass(frozen=True)
class Tensor:
    """`size` bytes at `offset`. i8: rows of int8, a row per output channel; i8dw: depthwise, a column per channel; i32 and
    f32: little-endian words, rows 1."""

    offset: int
    size: int
    kind: TensorKind
    rows: int
    columns: int
    name: str = ""

    @property
    def shape(self) -> tuple[TensorKind, int, int]:
        return self.kind, self.rows, self.columns


Layout = tuple[Tensor, ...]


def read_layout(text: str | bytes) -> tuple[Layout, Layout]:
    """Tensor tables of the old and the new image: {"old": [tensor...], "new": [tensor...]}, each tensor an object with
    off, len (bytes), kind (i8, i8dw, i32, f32), rows and cols. Raises LayoutInvalid."""
    try:
        document = json.loads(text)
    except ValueError as error:
        raise LayoutInvalid(f"layout: not JSON ({error})") from error
    if not isinstance(document, dict):
        raise LayoutInvalid('layout: must be an object with "old" and "new"')
    return _side(document, "old"), _side(document, "new")


def _side(document: dict[str, Any], side: str) -> Layout:
    rows = document.get(side)
    if not isinstance(rows, list):
        raise LayoutInvalid(f'layout: "{side}" must be a list of tensors')
    return tuple(_tensor(row, f"{side}[{index}]") for index, row in enumerate(rows))


def _tensor(row: object, where: str) -> Tensor:
    if not isinstance(row, dict):
        raise LayoutInvalid(f"layout: {where} must be an object")
    for field in ("off", "len", "rows", "cols"):
        if type(row.get(field)) is not int or not 0 <= row[field] < 1 << 31:
            raise LayoutInvalid(f"layout: {where}: {field} is {row.get(field)!r}, must be a whole number from 0")
    if row.get("kind") not in KINDS:
        raise LayoutInvalid(f"layout: {where}: kind is {row.get('kind')!r}, must be one of {', '.join(KINDS)}")
    return Tensor(row["off"], row["len"], row["kind"], row["rows"], row["cols"])


def check_layout(layout: Sequence[Tensor], image_size: int) -> Layout:
    """The tensors in rising order. Raises LayoutInvalid where one has the wrong size, overlaps or leaves the image."""
    ordered = tuple(sorted(layout, key=lambda tensor: tensor.offset))
    end = 0
    for tensor in ordered:
        where = f"layout: tensor at {tensor.offset}"
        unit = 1 if tensor.kind in ("i8", "i8dw") else 4
        if tensor.rows * tensor.columns * unit != tensor.size or tensor.size == 0:
            raise LayoutInvalid(f"{where}: {tensor.rows} x {tensor.columns} {tensor.kind} is not {tensor.size} bytes")
        if tensor.offset < end:
            raise LayoutInvalid(f"{where}: begins inside the tensor before it, which ends at {end}")
        end = tensor.offset + tensor.size
    if end > image_size:
        raise LayoutInvalid(f"layout: tensors end at {end}, the image has {image_size} bytes")
    return ordered
