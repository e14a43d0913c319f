"""Six kinds of network, from ONNX to a verdict or to a refusal that names the operator."""

from __future__ import annotations

import dataclasses
import time
from functools import cache

import onnx
import onnxruntime
import pytest

from tests.networks import KINDS, Network, cnn_1d, npz, recurrent
from updates.pipeline import post_pass
from updates.pipeline.build import build, fit_image
from updates.pipeline.choice import choose
from updates.pipeline.convert import baseline
from updates.pipeline.types import BuildRequest, BuildResult, Profile, Refused, TargetClass, ValidationLimits

SUPPORTED = {kind.__name__: kind for kind in KINDS if kind is not recurrent}
LONG = ("residual_cnn", "mobilenet")
EACH = [pytest.param(kind, marks=pytest.mark.long if kind in LONG else ()) for kind in SUPPORTED]
CONVOLUTIONAL = [kind for kind in EACH if kind.values != ("fc_autoencoder",)]
ROOMY = Profile("roomy", slot_bytes=512 * 1024, sram_bytes=512 * 1024)
TARGETS = (
    TargetClass(),
    TargetClass(granularity="fc-per-channel"),
    TargetClass(precision="int16x8"),
    TargetClass(precision="int4"),
)


def request(network: Network, targets: tuple[TargetClass, ...] = TARGETS) -> BuildRequest:
    return BuildRequest(
        onnx=network.onnx,
        calibration=npz(inputs=network.inputs(64, seed=1)),
        evaluation=npz(inputs=network.inputs(100, seed=2)),
        targets=targets,
        profiles=(ROOMY, Profile("small", sram_bytes=40 * 1024)),
        limits=ValidationLimits(minimum_sqnr_db=15),
    )


@cache
def built(kind: str) -> BuildResult:
    return build(request(SUPPORTED[kind]()), lambda stage, fraction: None)


def noise(kind: str) -> dict[tuple[str, str], float]:
    result = built(kind)
    return {
        (image.target.precision, image.target.granularity): result.reports[image.digest].slices[0].sqnr_db
        for image in result.images
    }


@pytest.mark.parametrize("kind", EACH)
def test_what_a_profile_gets_passes_perturbed_too_and_int8_fits_where_there_is_room(kind):
    result = built(kind)
    choice = result.choices[0]
    image = result.images[0]

    assert result.fits[image.digest][0].fits
    assert result.reports[image.digest].verdict != "failed", noise(kind)
    assert choice.digest is not None
    report = result.reports[choice.digest]
    assert report.verdict == "passed", report.reasons
    assert {"clean", "noise-10db", "dropouts", "clipping"} <= {one.name for one in report.slices}


@pytest.mark.parametrize("kind", EACH)
def test_what_no_profile_gets_did_not_meet_perturbed_samples_and_is_not_said_to_pass(kind):
    result = built(kind)
    chosen = {choice.digest for choice in result.choices}

    for digest, report in result.reports.items():
        if digest not in chosen:
            assert report.verdict != "passed"
            assert [one.name for one in report.slices] == ["clean"]


@pytest.mark.parametrize("kind", EACH)
def test_every_precision_is_integers_alone(kind):
    for image in built(kind).images:
        post_pass.check_integer(image.data)
        assert image.input_type == ("int16" if image.target.precision == "int16x8" else "int8")


@pytest.mark.parametrize("kind", EACH)
def test_an_image_tells_the_class_that_it_was_built_for(kind):
    for image in built(kind).images:
        assert post_pass.class_of(image.data) == (image.target.precision, image.target.granularity)
        assert post_pass.contract_of(image.data, "none") == image.io_hash


def test_what_is_no_integer_image_has_no_class():
    image = built("cnn_1d").images[0].data
    unpacked = post_pass.unpack(image)
    unpacked.subgraphs[0].tensors[int(unpacked.subgraphs[0].inputs[0])].type = post_pass.schema.TensorType.FLOAT32
    for data in (image[: len(image) // 2], image[:8], b"\x1c\0\0\0TFL3" + 90 * b"\xff", post_pass.pack(unpacked)):
        with pytest.raises(ValueError, match=r"image|neither"):
            post_pass.class_of(data)


@pytest.mark.parametrize("kind", EACH)
def test_more_bits_are_less_noise(kind):
    found = noise(kind)

    assert found["int4", "fc-per-tensor"] < found["int16x8", "fc-per-tensor"]
    assert found["int16x8", "fc-per-tensor"] > found["int8", "fc-per-tensor"] - 0.5


@pytest.mark.parametrize("kind", EACH)
def test_four_bit_weights_are_smaller_and_depthwise_weights_keep_eight(kind):
    images = {image.target.precision: image for image in built(kind).images[1:]}

    assert len(images["int4"].data) < len(images["int8"].data)
    unpacked = post_pass.unpack(images["int4"].data)
    types = {
        (post_pass.operator_name(unpacked, one), unpacked.subgraphs[0].tensors[one.inputs[1]].type)
        for one in unpacked.subgraphs[0].operators
        if len(one.inputs) > 2
    }
    assert {kind for name, kind in types if name == "DEPTHWISE_CONV_2D"} <= {post_pass.schema.TensorType.INT8}
    assert {kind for name, kind in types if name in ("CONV_2D", "FULLY_CONNECTED")} == {
        post_pass.schema.TensorType.INT4
    }


@pytest.mark.parametrize("kind", CONVOLUTIONAL)
def test_the_arena_of_a_convolutional_network_is_at_most_a_tenth_above_what_tflm_needs(kind):
    result = built(kind)
    for image in result.images[:3]:
        for fit in result.fits[image.digest]:
            assert image.arena_bytes <= fit.arena_bytes <= 1.1 * image.arena_bytes


def test_a_recurrent_network_is_refused_in_time_and_its_operator_named():
    began = time.monotonic()

    with pytest.raises(Refused) as caught:
        build(request(recurrent()), lambda stage, fraction: None)

    assert time.monotonic() - began < 60
    assert caught.value.code == "unsupported_operator", str(caught.value)
    assert caught.value.field in ("LSTM", "UNIDIRECTIONAL_SEQUENCE_LSTM"), str(caught.value)


def test_a_scale_a_channel_costs_a_fully_connected_network_arena_and_loses_no_accuracy():
    """8 bytes a channel stay in the arena: 4 times as much on an autoencoder, so the frugal image must exist too."""
    per_tensor, per_channel = built("fc_autoencoder").images[:2]
    found = noise("fc_autoencoder")

    assert per_channel.arena_bytes > 2 * per_tensor.arena_bytes
    assert found["int8", "fc-per-channel"] > found["int8", "fc-per-tensor"] - 0.5


def test_each_profile_gets_the_most_accurate_image_that_fits_its_arena():
    result = built("fc_autoencoder")
    images = {image.digest: image for image in result.images}
    tight = Profile("tight", slot_bytes=512 * 1024, sram_bytes=16 * 1024, reserved_sram_bytes=4096)
    fits = {digest: (*result.fits[digest], fit_image(image, tight)) for digest, image in images.items()}

    roomy, frugal = (choose(profile, result.images, fits, result.reports) for profile in (ROOMY, tight))

    assert roomy.digest is not None
    assert frugal.digest is not None
    assert images[frugal.digest].target.granularity == "fc-per-tensor"
    assert len(frugal.alternatives) == len(images)
    accuracy = {one.digest: one.sqnr_db for one in roomy.alternatives}
    assert accuracy[roomy.digest] >= accuracy[frugal.digest]


def test_unpacked_four_bit_weights_count_where_kernels_unpack_them_and_nowhere_else():
    image = next(one for one in built("fc_autoencoder").images if one.target.precision == "int4")
    with_cmsis, with_reference = (
        fit_image(image, Profile("p", kernel_library=library)) for library in ("cmsis-nn", "reference")
    )

    assert with_reference.arena_bytes >= image.arena_bytes > 640 * 128
    assert with_cmsis.arena_bytes < 8 * 1024
    assert "tflm-bisected-x86" not in with_cmsis.arena_by_evidence


def test_a_target_that_a_network_cannot_have_is_left_out_and_the_others_are_built():
    """TFLM's hard swish knows no int16."""
    network = cnn_1d()
    model = onnx.load_model_from_string(network.onnx)
    for node in model.graph.node:
        if node.op_type == "Relu":
            node.op_type = "HardSwish"

    result = build(
        dataclasses.replace(
            request(network, (TargetClass(), TargetClass(precision="int16x8"))), onnx=model.SerializeToString()
        ),
        lambda stage, fraction: None,
    )

    assert [image.target.precision for image in result.images] == ["int8"]
    ((target, reason),) = result.left_out
    assert target.precision == "int16x8"
    assert "HARD_SWISH" in reason or "HardSwish" in reason


def test_the_baseline_is_never_optimised():
    """Optimised onnxruntime gives other results on other CPUs."""
    options = baseline(cnn_1d().onnx).get_session_options()

    assert options.graph_optimization_level == onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (1, 1)
