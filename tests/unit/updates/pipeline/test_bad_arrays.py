from __future__ import annotations

import io
import pickle
import struct
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.updates.pipeline.models import SHAPE, npz, samples
from updates.pipeline.arrays import MAXIMUM_ARRAY_BYTES, read_npz, slices_of
from updates.pipeline.types import Refused

INPUT_SHAPE = (1, *SHAPE)


def refusal(data: bytes) -> Refused:
    with pytest.raises(Refused) as caught:
        slices_of(read_npz(data, field="evaluation"), input_shape=INPUT_SHAPE, field="evaluation")
    assert caught.value.stage == "arrays"
    assert caught.value.field.startswith("evaluation")
    assert caught.value.fix in str(caught.value) or caught.value.fix.rstrip(".") in str(caught.value)
    return caught.value


def member(name: str, content: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return file.getvalue()


def npy(shape: tuple[int, ...], content: bytes, descr: str = "<f4") -> bytes:
    header = repr({"descr": descr, "fortran_order": False, "shape": shape}).encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + content


def test_a_file_that_is_no_npz_is_refused():
    assert refusal(b"hello, this is not a zip").code == "not_npz"


def test_a_truncated_npz_is_refused():
    assert refusal(npz(inputs=samples(50))[:-200]).code == "not_npz"


def test_a_damaged_member_is_refused():
    data = bytearray(npz(inputs=samples(50)))
    data[len(data) // 2] ^= 0xFF

    assert refusal(bytes(data)).code == "not_npz"


def test_a_header_that_declares_3_gb_is_refused_before_anything_is_allocated():
    refused = refusal(member("inputs.npy", npy((805_306_368,), b"\0" * 64)))

    assert (refused.code, refused.field) == ("size_mismatch", "evaluation: inputs")
    assert "3221225472" in refused.message


def test_a_zip_bomb_is_refused_by_its_directory():
    bomb = member("inputs.npy", npy((1,), b"\0" * (MAXIMUM_ARRAY_BYTES + 1)))

    assert len(bomb) < 1_000_000
    assert refusal(bomb).code == "too_large"


def test_a_zip_whose_directory_lies_about_the_size_is_refused():
    data = bytearray(member("inputs.npy", npy((1_000_000,), b"\0" * 4_000_000)))
    entry = data.rfind(b"PK\x01\x02")
    data[entry + 24 : entry + 28] = struct.pack("<I", 1000)

    assert refusal(bytes(data)).code in ("not_npz", "size_mismatch")


def test_a_pickled_array_is_never_loaded():
    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("a pickle was loaded",))

    file = io.BytesIO()
    np.savez(file, inputs=np.array([Bomb()], dtype=object))

    assert refusal(file.getvalue()).code == "wrong_type"
    assert refusal(member("inputs.npy", pickle.dumps([1]))).code == "not_npy"


@pytest.mark.parametrize("name", ["images", "inputs.", "labels.a/b", "inputs_noise", "../inputs"])
def test_an_unknown_array_name_is_refused_by_name(name):
    refused = refusal(npz(**{"inputs": samples(2), name: samples(2)}))

    assert refused.code == "wrong_name"
    assert name in refused.field


def test_missing_inputs_are_named():
    refused = refusal(npz(labels=np.zeros(3, np.int64)))

    assert (refused.code, refused.field) == ("missing_array", "evaluation: inputs")


def test_labels_of_a_slice_without_inputs_are_named():
    refused = refusal(npz(inputs=samples(2), **{"labels.hum": np.zeros(2, np.int64)}))

    assert (refused.code, refused.field) == ("missing_array", "evaluation: inputs.hum")


def test_a_wrong_input_shape_shows_both_shapes():
    refused = refusal(npz(inputs=np.zeros((5, 3, 8, 11), np.float32)))

    assert (refused.code, refused.field) == ("wrong_shape", "evaluation: inputs")
    assert "(3, 8, 10)" in refused.message
    assert "(5, 3, 8, 11)" in refused.message


def test_a_wrong_number_of_labels_is_refused():
    refused = refusal(npz(inputs=samples(5), labels=np.zeros(4, np.int64)))

    assert (refused.code, refused.field) == ("wrong_shape", "evaluation: labels")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_inputs_that_are_not_finite_are_refused(value):
    inputs = samples(5)
    inputs[3, 1, 2, 3] = value

    refused = refusal(npz(inputs=inputs))
    assert (refused.code, refused.field) == ("not_finite", "evaluation: inputs")
    assert refused.message == "1 of 5 samples hold NaN, infinite or too large values, the first is sample 3"


def test_integer_inputs_are_refused():
    assert refusal(npz(inputs=np.zeros((5, *SHAPE), np.int32))).code == "wrong_type"


def test_negative_class_numbers_are_refused():
    refused = refusal(npz(inputs=samples(2), labels=np.array([0, -1])))
    assert (refused.code, refused.message) == ("wrong_shape", "-1 of sample 1 is no class number")


def test_half_precision_inputs_and_further_slices_are_read():
    inputs = samples(4)
    data = npz(inputs=inputs.astype(np.float16), labels=np.arange(4, dtype=np.uint8), **{"inputs.hum": inputs * 2})

    slices = slices_of(read_npz(data, field="evaluation"), input_shape=INPUT_SHAPE, field="evaluation")

    assert [one.name for one in slices] == ["clean", "hum"]
    assert slices[0].inputs.dtype == np.float32
    assert np.allclose(slices[0].inputs, inputs, atol=1e-2)
    assert slices[0].labels is not None
    assert slices[0].labels.tolist() == [0, 1, 2, 3]
    assert slices[1].labels is None


@given(st.binary(max_size=400))
def test_no_bytes_do_anything_but_load_or_be_refused(data):
    for upload in (data, member("inputs.npy", data), member("inputs.npy", b"\x93NUMPY\x01\x00" + data)):
        try:
            read_npz(upload, field="evaluation")
        except Refused as refused:
            assert refused.stage == "arrays"
