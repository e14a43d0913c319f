from __future__ import annotations

import dataclasses
import hashlib

import numpy as np
import pytest
from onnx import helper

from tests.unit.updates.pipeline.models import CLASSES, convolution_model, model, npz, request, samples
from updates.pipeline import judge, post_pass, self_test
from updates.pipeline.build import build
from updates.pipeline.convert import find_layout, fp32_outputs, sqnr_db
from updates.pipeline.types import BuildResult, Existing, Image, Refused, TargetClass, io_hash

pytestmark = pytest.mark.usefixtures("stages_run_once")


@pytest.fixture(scope="module")
def labels() -> np.ndarray:
    return fp32_outputs(convolution_model(), samples(120, seed=3)).argmax(1)


@pytest.fixture(scope="module")
def progress() -> list[tuple[str, float]]:
    return []


@pytest.fixture(scope="module")
def result(labels, progress) -> BuildResult:
    return build(
        request(convolution_model(), labels=labels, preprocessing="imu-v1"),
        lambda stage, fraction: progress.append((stage, fraction)),
    )


@pytest.fixture(scope="module")
def image(result) -> Image:
    return result.images[0]


def test_the_image_decides_like_the_fp32_model(result, image):
    report = result.reports[image.digest]

    assert report.verdict == "passed", report.reasons
    assert report.slices[0].agreement >= 0.95
    assert report.slices[0].sqnr_db > 20
    assert report.slices[0].accuracy_fp32 == 1.0


def test_the_image_describes_itself(image):
    assert image.digest == hashlib.sha256(image.data).hexdigest()
    assert (image.input_shape, image.input_type) == ((1, 8, 10, 3), "int8")
    assert (image.output_shape, image.output_type) == ((1, CLASSES), "int8")
    assert image.io_hash == io_hash((1, 8, 10, 3), "int8", (1, CLASSES), "int8", "imu-v1")
    assert image.target == TargetClass()


def test_the_image_is_integer_only_and_its_relus_are_fused(image):
    assert "RELU" not in image.operators
    assert "DEQUANTIZE" not in image.operators
    assert {"CONV_2D", "FULLY_CONNECTED"} <= set(image.operators)


def test_the_weights_lie_inside_the_flatbuffer_on_16_bytes(image):
    assert post_pass.misaligned_buffers(image.data, 16) == []
    assert all(not buffer.offset for buffer in post_pass.unpack(image.data).buffers)


def test_fully_connected_weights_have_one_scale_and_convolutions_one_a_channel(image):
    unpacked = post_pass.unpack(image.data)
    tensors = unpacked.subgraphs[0].tensors
    scales = {
        post_pass.operator_name(unpacked, operator): len(tensors[operator.inputs[1]].quantization.scale)
        for operator in unpacked.subgraphs[0].operators
        if post_pass.operator_name(unpacked, operator) in ("CONV_2D", "FULLY_CONNECTED")
    }

    assert scales == {"CONV_2D": 8, "FULLY_CONNECTED": 1}


def test_names_and_observed_ranges_are_stripped(image):
    unpacked = post_pass.unpack(image.data)

    assert not any(tensor.name for tensor in unpacked.subgraphs[0].tensors)
    assert not any(
        tensor.quantization.min is not None for tensor in unpacked.subgraphs[0].tensors if tensor.quantization
    )
    assert not unpacked.signatureDefs


def test_the_arena_is_the_smallest_that_runs(image):
    assert image.arena_bytes % 16 == 0
    assert judge._runs(image.data, image.arena_bytes)
    assert not judge._runs(image.data, image.arena_bytes - 16)


def test_the_self_test_digest_follows_its_definition(image):
    interpreter = judge.interpreter(image.data, image.arena_bytes)
    outputs = hashlib.sha256()
    for number in range(4):
        stream = b"".join(
            hashlib.sha256(b"modelfleet-golden" + bytes([number]) + counter.to_bytes(4, "big")).digest()
            for counter in range(8)
        )
        interpreter.set_input(np.frombuffer(stream[:240], np.int8).reshape(1, 8, 10, 3), 0)
        interpreter.invoke()
        outputs.update(interpreter.get_output(0).tobytes())

    assert image.self_test_digest == outputs.hexdigest()[:16]
    assert len(self_test.golden_input(0, 240)) == 240


def test_each_profile_gets_its_own_verdict(result, image):
    roomy, tight = result.fits[image.digest]

    assert (roomy.profile, roomy.fits, roomy.reasons) == ("roomy", True, ())
    assert (tight.profile, tight.fits) == ("tight", False)
    assert str(image.arena_bytes) in tight.reasons[0]
    assert "1433" in tight.reasons[0]


def test_progress_names_each_stage_and_rises_to_one(result, progress):
    assert [stage for stage, _ in progress] == [
        "check", "convert", "calibrate", "quantize", "post_pass", "judge", "validate", "done",
    ]  # fmt: skip
    fractions = [fraction for _, fraction in progress]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0


def test_the_same_request_gives_the_same_bytes(result, labels):
    again = build(request(convolution_model(), labels=labels, preprocessing="imu-v1"), lambda stage, fraction: None)

    assert again == result


def test_two_target_classes_give_an_image_each(labels):
    two = (TargetClass(alignment=16), TargetClass(alignment=64))

    built = build(request(convolution_model(), labels=labels, targets=two), lambda stage, fraction: None)

    assert [one.target for one in built.images] == list(two)


def test_an_image_that_exists_is_judged_as_it_is_and_proved_where_a_profile_wants_it(result, image, labels):
    other = build(
        request(
            convolution_model(), labels=labels, targets=(TargetClass(precision="int16x8"),), preprocessing="imu-v1"
        ),
        lambda stage, fraction: None,
    ).images[0]
    heard: list[str] = []

    again = build(
        dataclasses.replace(
            request(convolution_model(), labels=labels, preprocessing="imu-v1"),
            calibration=npz(inputs=samples(3)),  # would make other images
            targets=(),
            existing=tuple(Existing(one.target, one.data) for one in (image, other)),
            held={"roomy": ("int8", "fc-per-tensor"), "tight": ("int8", "fc-per-tensor")},
        ),
        lambda stage, fraction: heard.append(stage),
    )

    assert again.images == (image, other)
    assert again.fits[image.digest] == result.fits[image.digest]
    assert not {"quantize", "post_pass"} & set(heard)
    wanted = {choice.digest for choice in again.choices if choice.digest}
    assert wanted
    for digest in wanted:
        assert "noise-10db" in [one.name for one in again.reports[digest].slices]


def test_one_outlier_in_the_calibration_data_widens_the_input_range(labels):
    """A moving average, the quantizer's own way, would all but forget it."""
    calibration = samples(32)
    calibration[5, 0, 0, 0] = 100.0
    changed = dataclasses.replace(request(convolution_model(), labels=labels), calibration=npz(inputs=calibration))

    image = build(changed, lambda stage, fraction: None).images[0]

    assert (127 - image.input_zero_point) * image.input_scale == pytest.approx(100, rel=0.02)


def test_a_layout_is_found_by_outputs_where_all_sizes_are_equal():
    """Three times 8: no shape can tell channels first from channels last."""
    random = np.random.default_rng(0)
    weights = {"w": random.normal(size=(4, 8, 3, 3)).astype(np.float32)}
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("GlobalAveragePool", ["c"], ["p"]),
        helper.make_node("Flatten", ["p"], ["y"]),
    ]
    inputs = random.normal(size=(120, 8, 8, 8)).astype(np.float32)
    data = model(nodes, weights, input_shape=(1, 8, 8, 8))

    built = build(
        dataclasses.replace(request(data), calibration=npz(inputs=inputs), evaluation=npz(inputs=inputs)),
        lambda stage, fraction: None,
    )

    report = built.reports[built.images[0].digest]
    assert report.slices[0].sqnr_db > 20
    assert report.verdict == "passed"


def test_labels_that_the_network_cannot_have_are_refused_before_anything_is_converted(labels):
    heard: list[str] = []

    with pytest.raises(Refused) as caught:
        build(request(convolution_model(), labels=labels + CLASSES), lambda stage, fraction: heard.append(stage))

    assert (caught.value.code, heard) == ("labels", ["check"])


def test_a_conversion_that_computes_something_else_is_refused(image, tmp_path):
    other = convolution_model(seed=9)
    interpreter_model = _converted(convolution_model(), tmp_path)

    with pytest.raises(Refused) as caught:
        find_layout(other, interpreter_model, samples(4))

    assert (caught.value.stage, caught.value.code) == ("convert", "not_equivalent")
    assert find_layout(convolution_model(), interpreter_model, samples(4))[0] == (1, 2, 0)


def _converted(data: bytes, directory) -> bytes:
    from updates.pipeline import child

    (directory / "checked.onnx").write_bytes(data)
    np.save(directory / "calibration.npy", samples(4))
    child.run("convert", "updates.pipeline.convert:stage", directory, {"operators": ["Conv"]})
    return (directory / "float.tflite").read_bytes()


def test_weights_outside_the_flatbuffer_come_inside(image):
    moved = post_pass.unpack(image.data)
    index = max(
        range(len(moved.buffers)), key=lambda i: len(moved.buffers[i].data) if moved.buffers[i].data is not None else 0
    )
    weights = bytes(moved.buffers[index].data)
    moved.buffers[index].data = None
    moved.buffers[index].offset, moved.buffers[index].size = 1 << 20, len(weights)
    outside = post_pass.pack(moved).ljust(1 << 20, b"\0") + weights

    unpacked = post_pass.unpack(outside)
    post_pass.inline_buffers(unpacked, outside)

    assert bytes(unpacked.buffers[index].data) == weights
    assert judge.minimum_arena(post_pass.pack(unpacked)) == image.arena_bytes


def test_an_image_that_tflm_refuses_ends_in_one_clear_reason(image):
    broken = post_pass.unpack(image.data)
    code = next(one for one in broken.operatorCodes if one.builtinCode == post_pass.schema.BuiltinOperator.CONV_2D)
    code.builtinCode = code.deprecatedBuiltinCode = post_pass.schema.BuiltinOperator.SELECT
    for operator in broken.subgraphs[0].operators:
        if broken.operatorCodes[operator.opcodeIndex] is code:
            operator.builtinOptions, operator.builtinOptionsType = None, 0

    with pytest.raises(Refused) as caught:
        judge.minimum_arena(post_pass.pack(broken))

    assert (caught.value.stage, caught.value.code, caught.value.field) == ("judge", "unsupported_operator", "SELECT")


def test_noise_ratio_of_equal_outputs_is_infinite():
    outputs = np.ones((3, 4), np.float32)

    assert sqnr_db(outputs, outputs) == float("inf")
    assert sqnr_db(outputs, outputs * 1.1) == pytest.approx(20, abs=0.01)


def test_an_operator_left_in_floating_point_is_named(tmp_path):
    with pytest.raises(Refused) as caught:
        post_pass.check_integer(_converted(convolution_model(), tmp_path))

    assert (caught.value.stage, caught.value.code, caught.value.field) == ("post_pass", "not_integer", "CONV_2D")
