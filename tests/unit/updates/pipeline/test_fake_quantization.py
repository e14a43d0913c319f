"""ONNX from quantization-aware training: the pairs go, the scales stay, the image is integers alone."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from tests.unit.updates.pipeline.models import CLASSES, convolution_weights, model, npz, request, samples
from updates.pipeline import post_pass
from updates.pipeline.build import build
from updates.pipeline.check import check
from updates.pipeline.convert import fp32_outputs, sqnr_db
from updates.pipeline.types import BuildResult, Refused, TargetClass

pytestmark = pytest.mark.usefixtures("stages_run_once")

INPUT_SCALE, HIDDEN_SCALE = 0.08, 0.09
# Far wider than the largest weight: calibration alone would never choose them.
WIDE = 1.7


def trained_model(*, relu_scale: float = HIDDEN_SCALE, **changed: object) -> bytes:
    """Conv (a scale a channel, int8 weights stored), ReLU, pool, Gemm (fake-quantized float weights), all in pairs."""
    weights = convolution_weights(4)
    channel_scales = (WIDE * np.abs(weights["cw"]).reshape(8, -1).max(1) / 127).astype(np.float32)
    levels = np.rint(weights["cw"] / channel_scales[:, None, None, None]).astype(np.int8)
    constants: dict[str, np.ndarray] = {
        "x_scale": np.float32(INPUT_SCALE),
        "x_zero": np.int8(3),
        "r_scale": np.float32(relu_scale),
        "r_zero": np.uint8(0),
        "w_levels": levels,
        "w_scale": channel_scales,
        "w_zero": np.zeros(8, np.int8),
        "cb": weights["cb"],
        "gw": np.random.default_rng(2).normal(size=(8, CLASSES)).astype(np.float32),
        "g_scale": np.float32(WIDE * 0.03),
        "g_zero": np.int8(0),
        "gb": np.zeros(CLASSES, np.float32),
    } | changed  # type: ignore[operator]
    nodes = [
        *pair("x", "x_scale", "x_zero"),
        helper.make_node("DequantizeLinear", ["w_levels", "w_scale", "w_zero"], ["w_dq"], "weights", axis=0),
        helper.make_node("Conv", ["x_dq", "w_dq", "cb"], ["c"], "convolve"),
        helper.make_node("Relu", ["c"], ["r"], "rectify"),
        *pair("r", "r_scale", "r_zero"),
        helper.make_node("GlobalAveragePool", ["r_dq"], ["p"], "pool"),
        helper.make_node("Flatten", ["p"], ["f"], "flatten"),
        *pair("gw", "g_scale", "g_zero"),
        helper.make_node("Gemm", ["f", "gw_dq", "gb"], ["y"], "decide"),
    ]
    return model(nodes, {name: np.asarray(value) for name, value in constants.items()})


def pair(name: str, scale: str, zero: str) -> list[onnx.NodeProto]:
    return [
        helper.make_node("QuantizeLinear", [name, scale, zero], [f"{name}_q"], f"quantize_{name}"),
        helper.make_node("DequantizeLinear", [f"{name}_q", scale, zero], [f"{name}_dq"], f"dequantize_{name}"),
    ]


@pytest.fixture(scope="module")
def result() -> BuildResult:
    return build(request(trained_model()), lambda stage, fraction: None)


def tensors_by_operator(image: bytes, kind: str):
    unpacked = post_pass.unpack(image)
    tensors = unpacked.subgraphs[0].tensors
    operator = next(one for one in unpacked.subgraphs[0].operators if post_pass.operator_name(unpacked, one) == kind)
    return unpacked, [tensors[index] for index in operator.inputs], tensors[operator.outputs[0]]


def test_no_quantization_node_is_left_and_the_weights_are_on_the_trained_grid():
    checked, facts = check(trained_model())

    graph = onnx.load_model_from_string(checked).graph
    assert {node.op_type for node in graph.node} == {"Conv", "Relu", "GlobalAveragePool", "Flatten", "Gemm"}
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    scale = np.asarray(facts["trained"]["scales"]["w_dq"])[:, None, None, None]
    np.testing.assert_allclose(stored["w_dq"] / scale, np.rint(stored["w_dq"] / scale), atol=1e-4)
    assert facts["trained"]["ranges"]["r"] == pytest.approx((0, 255 * HIDDEN_SCALE))


def test_the_stripped_model_computes_what_training_computed_but_for_rounded_activations():
    checked, _ = check(trained_model())
    inputs = samples(20, seed=8)

    ours, theirs = fp32_outputs(checked, inputs), fp32_outputs(trained_model(), inputs)

    assert 25 < sqnr_db(theirs, ours) < 60


def test_the_image_is_integer_only_and_decides_alike(result):
    image = result.images[0]

    post_pass.check_integer(image.data)
    assert not {"QUANTIZE", "DEQUANTIZE"} & set(image.operators)
    assert result.reports[image.digest].slices[0].sqnr_db > 20


def test_the_trained_scales_are_the_images_own(result):
    data = result.images[0].data
    unpacked, (source, weights, _), output = tensors_by_operator(data, "CONV_2D")

    assert source.quantization.scale[0] == pytest.approx(INPUT_SCALE, rel=1e-5)
    assert source.quantization.zeroPoint[0] == 3
    assert output.quantization.scale[0] == pytest.approx(HIDDEN_SCALE, rel=1e-5)
    trained = (WIDE * np.abs(convolution_weights(4)["cw"]).reshape(8, -1).max(1) / 127).astype(np.float32)
    np.testing.assert_allclose(weights.quantization.scale, trained, rtol=1e-5)
    levels = np.rint(convolution_weights(4)["cw"] / trained[:, None, None, None]).transpose(0, 2, 3, 1)
    np.testing.assert_array_equal(unpacked.buffers[weights.buffer].data.view(np.int8), levels.reshape(-1))


def test_fake_quantized_float_weights_keep_their_one_scale(result):
    _, (_, weights, *_), _ = tensors_by_operator(result.images[0].data, "FULLY_CONNECTED")

    np.testing.assert_allclose(weights.quantization.scale, [WIDE * 0.03], rtol=1e-5)


def test_a_clipping_trained_range_is_kept_against_what_calibration_sees():
    clipped = build(request(trained_model(relu_scale=0.004)), lambda stage, fraction: None).images[0]

    _, _, output = tensors_by_operator(clipped.data, "CONV_2D")
    assert output.quantization.scale[0] == pytest.approx(0.004, rel=1e-5)


@pytest.mark.parametrize("precision", [pytest.param("int16x8", marks=pytest.mark.long), "int4"])
def test_other_precisions_of_a_trained_model_are_integer_only_too(precision):
    built = build(request(trained_model(), targets=(TargetClass(precision=precision),)), lambda stage, fraction: None)

    post_pass.check_integer(built.images[0].data)


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"x_scale": np.float32(0)}, "QuantizeLinear (quantize_x)"),
        ({"r_scale": np.full(8, 0.1, np.float32), "r_zero": np.zeros(8, np.uint8)}, "QuantizeLinear (quantize_r)"),
    ],
)
def test_a_grid_that_no_kernel_has_is_refused_by_name(changed, named):
    with pytest.raises(Refused) as caught:
        check(trained_model(**changed))

    assert (caught.value.stage, caught.value.code, caught.value.field) == ("check", "fake_quantization", named)


def test_a_dequantize_alone_is_refused():
    nodes = [helper.make_node("DequantizeLinear", ["x", "s"], ["y"], "alone")]

    with pytest.raises(Refused) as caught:
        check(model(nodes, {"s": np.float32(1)}))

    assert caught.value.field == "DequantizeLinear (alone)"


def test_a_quantized_graph_output_keeps_its_name():
    nodes = [helper.make_node("Gemm", ["x", "w"], ["h"], "decide"), *pair("h", "s", "z")]
    nodes[-1].output[0] = "y"
    constants = {"w": np.ones((6, 3), np.float32), "s": np.float32(0.1), "z": np.int8(0)}
    data = model(nodes, constants, input_shape=(1, 6), output_shape=(1, 3))

    checked, facts = check(data)

    inputs = np.ones((2, 6), np.float32)
    np.testing.assert_array_equal(fp32_outputs(checked, inputs), np.full((2, 3), 6, np.float32))
    assert facts["output_name"] == "y"
    arrays = npz(inputs=np.random.default_rng(0).normal(size=(120, 6)).astype(np.float32))
    built = build(request(data, calibration=arrays, evaluation=arrays), lambda stage, fraction: None)
    assert built.images[0].output_scale == pytest.approx(0.1, rel=1e-5)
