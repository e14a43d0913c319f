from __future__ import annotations

import time

import numpy as np
import onnx
import pytest
from onnx import helper

from tests.unit.updates.pipeline.models import (
    CLASSES,
    convolution_model,
    convolution_nodes,
    convolution_weights,
    model,
    npz,
    request,
)
from updates.pipeline.build import build
from updates.pipeline.check import check
from updates.pipeline.types import MAXIMUM_ONNX_BYTES, Refused, TargetClass


def refusal(data: bytes) -> Refused:
    with pytest.raises(Refused) as caught:
        check(data)
    assert caught.value.stage == "check"
    return caught.value


def build_refusal(data: bytes, **more) -> Refused:
    started = time.monotonic()
    with pytest.raises(Refused) as caught:
        build(request(data, **more), lambda stage, fraction: None)
    assert time.monotonic() - started < 60
    return caught.value


def test_a_file_that_is_no_onnx_is_refused():
    assert refusal(b"\x89PNG\r\n\x1a\n not a model at all").code == "not_onnx"
    assert refusal(b"").code == "not_onnx"


def test_every_truncated_model_is_refused():
    data = convolution_model()
    for kept in range(0, len(data) - 1, 97):
        assert refusal(data[:kept]).code in ("not_onnx", "invalid_model", "invalid_weights", "inputs_outputs")


def test_a_too_large_model_is_refused_with_the_limit():
    refused = refusal(b"\0" * (MAXIMUM_ONNX_BYTES + 1))

    assert refused.code == "too_large"
    assert str(MAXIMUM_ONNX_BYTES) in refused.message


def test_a_tensor_that_declares_3_gb_is_refused_by_name():
    made = onnx.load_model_from_string(convolution_model())
    made.graph.initializer[0].dims[:] = [805_306_368]

    refused = refusal(made.SerializeToString())

    assert (refused.code, refused.field) == ("too_large", "cw")


def test_a_tensor_of_another_size_than_declared_is_refused_by_name():
    made = onnx.load_model_from_string(convolution_model())
    made.graph.initializer[0].dims[:] = [8, 3, 3, 4]

    assert refusal(made.SerializeToString()).field == "cw"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_refused_by_name(value):
    weights = convolution_weights()
    weights["fw"][2, 3] = value

    refused = refusal(model(convolution_nodes(), weights))

    assert (refused.code, refused.field) == ("not_finite", "fw")


def test_weights_in_another_file_are_refused():
    made = onnx.load_model_from_string(convolution_model())
    made.graph.initializer[0].data_location = onnx.TensorProto.EXTERNAL

    assert refusal(made.SerializeToString()).code == "external_data"


def test_a_dynamic_dimension_is_named():
    refused = refusal(convolution_model(input_shape=(1, 3, "time", 10)))

    assert (refused.code, refused.field) == ("dynamic_shape", "x")
    assert "time" in refused.message


def test_a_free_batch_becomes_one():
    _, facts = check(convolution_model(input_shape=("batch", 3, 8, 10), output_shape=("batch", CLASSES)))

    assert facts["input_shape"] == [1, 3, 8, 10]
    assert facts["output_shape"] == [1, CLASSES]


def test_a_larger_batch_is_refused():
    assert refusal(convolution_model(input_shape=(4, 3, 8, 10), output_shape=(4, CLASSES))).code == "batch_size"


def test_a_data_dependent_operator_is_named():
    nodes = [
        helper.make_node("NonZero", ["x"], ["n"], "find_peaks"),
        helper.make_node("Cast", ["n"], ["y"], to=onnx.TensorProto.FLOAT),
    ]

    refused = refusal(model(nodes, {}, output_shape=(4, "peaks")))

    assert (refused.code, refused.field) == ("data_dependent_operator", "NonZero (find_peaks)")


def test_an_operator_of_another_domain_is_named():
    node = helper.make_node("Magic", ["x"], ["y"], "magic", domain="com.example")

    assert refusal(model([node], {})).field == "Magic (magic)"


def test_two_inputs_are_refused():
    made = onnx.load_model_from_string(convolution_model())
    made.graph.input.append(helper.make_tensor_value_info("z", onnx.TensorProto.FLOAT, [1]))

    assert refusal(made.SerializeToString()).code == "inputs_outputs"


def test_an_operator_without_an_integer_kernel_ends_the_build_with_its_name():
    nodes = [*convolution_nodes()[:-1], helper.make_node("Gemm", ["hr", "gw", "gb"], ["y0"])]
    nodes.append(helper.make_node("Sin", ["y0"], ["y"], "wave"))

    refused = build_refusal(model(nodes, convolution_weights()))

    assert (refused.stage, refused.code, refused.field) == ("convert", "unsupported_operator", "SIN")


def test_an_operator_that_the_converter_lacks_ends_the_build_with_its_name():
    data = model(
        [helper.make_node("Det", ["x"], ["y"], "determinant")], {}, input_shape=(1, 3, 8, 8), output_shape=(1, 3)
    )

    refused = build_refusal(
        data,
        calibration=npz(inputs=np.zeros((4, 3, 8, 8), np.float32)),
        evaluation=npz(inputs=np.zeros((4, 3, 8, 8), np.float32)),
    )

    assert (refused.stage, refused.code, refused.field) == ("convert", "unsupported_operator", "ONNX_DET")


def test_wrong_arrays_end_the_build_with_the_name_of_the_array():
    bad = request(convolution_model())
    refused_request = type(bad)(**{**vars(bad), "calibration": bad.onnx})

    with pytest.raises(Refused) as caught:
        build(refused_request, lambda stage, fraction: None)

    assert (caught.value.stage, caught.value.field) == ("arrays", "calibration")


@pytest.mark.parametrize(
    ("target", "field"),
    [
        (TargetClass(precision="int2"), "targets.precision"),
        (TargetClass(granularity="fc-per-block"), "targets.granularity"),
        (TargetClass(runtime="tvm"), "targets.runtime"),
        # TFLM's and CMSIS-NN's kernels take one scale a tensor for int4 there.
        (TargetClass(precision="int4", granularity="fc-per-channel"), "targets.granularity"),
    ],
)
def test_a_target_that_is_not_built_is_refused_by_field(target, field):
    refused = build_refusal(convolution_model(), targets=(target,))

    assert (refused.stage, refused.field) == ("quantize", field)
