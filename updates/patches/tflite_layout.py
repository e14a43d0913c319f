"""The tensor table of a .tflite file, read straight from the flatbuffer (schema: tensorflow/lite/schema/schema.fbs).

Every offset in the file is checked before it is followed: the file may come from anywhere.
"""

from __future__ import annotations

import struct

from updates.patches.layout import Layout, LayoutInvalid, Tensor, check_layout

_INT8, _INT32, _DEPTHWISE_CONV_2D = 9, 2, 4
_TENSORS_MAX = 4096
_WORTH_BYTES = 8  # a smaller tensor is not worth an op of its own


def is_tflite(image: bytes) -> bool:
    return image[4:8] == b"TFL3"


def tflite_layout(image: bytes) -> Layout:
    """int8 weights, int32 biases and the float32 vectors of quantization scales. Raises LayoutInvalid."""
    file = _Flatbuffer(image)
    model = file.root()
    codes = [_operator_code(code) for code in model.tables(1)]
    buffers = model.tables(4)
    found: dict[int, Tensor] = {}
    for graph in model.tables(2):
        depthwise = set()
        for operator in graph.tables(3):
            inputs = operator.int32s(1)
            index = operator.uint32(0)
            if index < len(codes) and codes[index] == _DEPTHWISE_CONV_2D and len(inputs) > 1:
                depthwise.add(inputs[1])
        for index, tensor in enumerate(graph.tables(0)):
            for part in _parts(tensor, buffers, index in depthwise):
                found.setdefault(part.offset, part)
    kept, end = [], 0
    for part in sorted(found.values(), key=lambda part: part.offset):
        if part.offset >= end and part.size >= _WORTH_BYTES:
            kept.append(part)
            end = part.offset + part.size
    return check_layout(kept, len(image))


def _operator_code(table: _Table) -> int:
    return max(table.int8(0), table.int32(3))


def _parts(tensor: _Table, buffers: list[_Table], depthwise: bool) -> list[Tensor]:
    parts = []
    name = tensor.bytes_(3).decode("utf-8", "replace")
    quantization = tensor.table(4)
    if quantization is not None:
        start, count = quantization.vector(2, 4)
        if count > 1:
            parts.append(Tensor(start, 4 * count, "f32", 1, count, f"{name} scale" if name else ""))
    index = tensor.uint32(2)
    if index >= len(buffers):
        raise LayoutInvalid(f"tflite: tensor {name!r} has buffer {index}, there are {len(buffers)}")
    start, size = buffers[index].vector(0, 1)
    shape, element = tensor.int32s(0), tensor.int8(1)
    if size == 0 or any(side <= 0 for side in shape):
        return parts
    if element == _INT32 and size % 4 == 0:
        parts.append(Tensor(start, size, "i32", 1, size // 4, name))
    elif element == _INT8 and len(shape) >= 2 and size % (shape[-1] if depthwise else shape[0]) == 0:
        if depthwise:
            parts.append(Tensor(start, size, "i8dw", size // shape[-1], shape[-1], name))
        else:
            parts.append(Tensor(start, size, "i8", shape[0], size // shape[0], name))
    return parts


class _Flatbuffer:
    def __init__(self, data: bytes) -> None:
        self.data = data

    def number(self, kind: str, at: int) -> int:
        size = struct.calcsize(kind)
        if at < 0 or at + size > len(self.data):
            raise LayoutInvalid(f"tflite: an offset points at {at}, outside the file of {len(self.data)} bytes")
        return int(struct.unpack_from("<" + kind, self.data, at)[0])

    def root(self) -> _Table:
        return _Table(self, self.number("I", 0))


class _Table:
    def __init__(self, file: _Flatbuffer, at: int) -> None:
        self._file, self._at = file, at
        self._fields = at - file.number("i", at)
        self._fields_size = file.number("H", self._fields)

    def _field(self, index: int) -> int | None:
        entry = 4 + 2 * index
        if entry + 2 > self._fields_size:
            return None
        offset = self._file.number("H", self._fields + entry)
        return self._at + offset if offset else None

    def int8(self, index: int) -> int:
        at = self._field(index)
        return 0 if at is None else self._file.number("b", at)

    def int32(self, index: int) -> int:
        at = self._field(index)
        return 0 if at is None else self._file.number("i", at)

    def uint32(self, index: int) -> int:
        at = self._field(index)
        return 0 if at is None else self._file.number("I", at)

    def table(self, index: int) -> _Table | None:
        at = self._field(index)
        return None if at is None else _Table(self._file, at + self._file.number("I", at))

    def vector(self, index: int, element_bytes: int) -> tuple[int, int]:
        """Offset of the first element and how many there are; 0, 0 where the field is absent."""
        at = self._field(index)
        if at is None:
            return 0, 0
        start = at + self._file.number("I", at)
        count = self._file.number("I", start)
        if start + 4 + count * element_bytes > len(self._file.data):
            raise LayoutInvalid(f"tflite: a vector of {count} elements at {start} leaves the file")
        return start + 4, count

    def bytes_(self, index: int) -> bytes:
        start, count = self.vector(index, 1)
        return self._file.data[start : start + count]

    def int32s(self, index: int) -> list[int]:
        start, count = self.vector(index, 4)
        return list(struct.unpack_from(f"<{count}i", self._file.data, start))

    def tables(self, index: int) -> list[_Table]:
        start, count = self.vector(index, 4)
        if count > _TENSORS_MAX:
            raise LayoutInvalid(f"tflite: a table of {count} entries, at most {_TENSORS_MAX} are read")
        places = [start + 4 * entry for entry in range(count)]
        return [_Table(self._file, place + self._file.number("I", place)) for place in places]
