"""The tensor table of a .tflite file, from a file made by the converter's own flatbuffer library."""

from __future__ import annotations

import flatbuffers
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devices.agent.patch_codec import OpKind, Profile, decode
from updates.patches.layout import LayoutInvalid
from updates.patches.tflite_layout import is_tflite, tflite_layout
from updates.patches.weight_patch import encode_patch


def model(seed: int, change: int = 0, name: str = "tensor") -> bytes:
    """A convolution of 8 x 27, a depthwise one of 9 x 8, biases and scales."""
    random = np.random.default_rng(seed)
    moved = np.random.default_rng(seed + 1).integers(-change, change + 1, (2, 216)).astype(np.int8)
    conv = (random.integers(-90, 90, 216).astype(np.int8) + moved[0]).tobytes()
    depthwise = (random.integers(-90, 90, 72).astype(np.int8) + moved[1][:72]).tobytes()
    bias = random.integers(-999, 999, 8).astype("<i4").tobytes()
    scales = random.uniform(0.01, 0.02, 8).astype("<f4")
    b = flatbuffers.Builder(0)

    def table(*fields: tuple[int, str, int]) -> int:
        b.StartObject(8)
        for index, kind, value in fields:
            if kind == "offset":
                b.PrependUOffsetTRelativeSlot(index, value, 0)
            else:
                getattr(b, f"Prepend{kind}Slot")(index, value, 0)
        return int(b.EndObject())

    def offsets(items: list[int]) -> int:
        b.StartVector(4, len(items), 4)
        for item in reversed(items):
            b.PrependUOffsetTRelative(item)
        return int(b.EndVector())

    buffers = [table()]
    for data in (conv, depthwise, bias):
        vector = b.CreateByteVector(data)
        buffers.append(table((0, "offset", vector)))
    tensors = []
    for index, shape, sort in ((1, [8, 3, 3, 3], 9), (2, [1, 3, 3, 8], 9), (3, [8], 2)):
        label = b.CreateString(f"{name} {index}")
        sides = b.CreateNumpyVector(np.array(shape, "<i4"))
        quantization = table((2, "offset", b.CreateNumpyVector(scales * np.float32(index))))
        tensors.append(
            table(
                (0, "offset", sides),
                (1, "Int8", sort),
                (2, "Uint32", index),
                (3, "offset", label),
                (4, "offset", quantization),
            )
        )
    inputs = [b.CreateNumpyVector(np.array(which, "<i4")) for which in ([9, 0, 2], [9, 1, 2])]
    operators = [table((0, "Uint32", code), (1, "offset", which)) for code, which in enumerate(inputs)]
    graph = table((0, "offset", offsets(tensors)), (3, "offset", offsets(operators)))
    codes = [table((0, "Int8", 3)), table((0, "Int8", 4), (3, "Int32", 4))]
    parts = offsets(codes), offsets([graph]), offsets(buffers)
    b.Finish(table((1, "offset", parts[0]), (2, "offset", parts[1]), (4, "offset", parts[2])), b"TFL3")
    return bytes(b.Output())


def test_weights_biases_and_scales_are_found_where_they_are() -> None:
    image = model(1)
    found = {(tensor.kind, tensor.name): tensor for tensor in tflite_layout(image)}
    assert {key: (tensor.rows, tensor.columns) for key, tensor in found.items()} == {
        ("i8", "tensor 1"): (8, 27),
        ("i8dw", "tensor 2"): (9, 8),
        ("i32", "tensor 3"): (1, 8),
        ("f32", "tensor 1 scale"): (1, 8),
        ("f32", "tensor 2 scale"): (1, 8),
        ("f32", "tensor 3 scale"): (1, 8),
    }
    scales = found["f32", "tensor 2 scale"]
    assert np.frombuffer(image, "<f4", 8, scales.offset) == pytest.approx(
        2 * np.frombuffer(image, "<f4", 8, found["f32", "tensor 1 scale"].offset)
    )


def test_a_patch_between_two_tflite_files_goes_by_tensors() -> None:
    old, new = model(1), model(1, change=1, name="renamed so that all is elsewhere")
    patch = encode_patch(old, new, profile=Profile.L)
    assert patch.way == "tensors"
    assert {OpKind.ROWS, OpKind.LINEAR, OpKind.COLUMNS} & {op.kind for op in patch.ops}
    assert decode(old, patch.data) == new


@settings(max_examples=500, deadline=None)
@given(st.data())
def test_a_damaged_file_is_refused_or_read_and_never_followed_outside(data: st.DataObject) -> None:
    image = bytearray(model(1))
    for _ in range(data.draw(st.integers(1, 6))):
        image[data.draw(st.integers(0, len(image) - 1))] = data.draw(st.integers(0, 255))
    image[4:8] = b"TFL3"
    assert is_tflite(bytes(image))
    try:
        layout = tflite_layout(bytes(image))
    except LayoutInvalid:
        return
    assert all(tensor.offset + tensor.size <= len(image) for tensor in layout)
