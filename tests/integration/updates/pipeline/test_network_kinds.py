"""Six kinds of network, from ONNX to a verdict or to a refusal that names the operator."""

from __future__ import annotations

import time
from functools import cache

import pytest

from tests.networks import KINDS, Network, npz, recurrent
from updates.pipeline import post_pass
from updates.pipeline.build import build
from updates.pipeline.types import BuildRequest, BuildResult, Profile, Refused, TargetClass, ValidationLimits

SUPPORTED = {kind.__name__: kind for kind in KINDS if kind is not recurrent}
TARGETS = (
    TargetClass(),
    TargetClass(granularity="fc-per-channel"),
    TargetClass(precision="int16x8"),
    TargetClass(precision="int4"),
)


def request(network: Network, targets: tuple[TargetClass, ...] = TARGETS) -> BuildRequest:
    return BuildRequest(
        onnx=network.onnx,
        calibration=npz(inputs=network.inputs(96, seed=1)),
        evaluation=npz(inputs=network.inputs(100, seed=2)),
        targets=targets,
        profiles=(Profile("roomy", sram_bytes=512 * 1024), Profile("small", sram_bytes=40 * 1024)),
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


@pytest.mark.parametrize("kind", SUPPORTED)
def test_int8_passes_its_limit_and_fits_where_there_is_room(kind):
    result = built(kind)
    image = result.images[0]

    assert result.reports[image.digest].verdict == "passed", noise(kind)
    assert result.fits[image.digest][0].fits


@pytest.mark.parametrize("kind", SUPPORTED)
def test_every_precision_is_integers_alone(kind):
    for image in built(kind).images:
        post_pass.check_integer(image.data)
        assert image.input_type == ("int16" if image.target.precision == "int16x8" else "int8")


@pytest.mark.parametrize("kind", SUPPORTED)
def test_more_bits_are_less_noise(kind):
    found = noise(kind)

    assert found["int4", "fc-per-tensor"] < found["int16x8", "fc-per-tensor"]
    assert found["int16x8", "fc-per-tensor"] > found["int8", "fc-per-tensor"] - 0.5


@pytest.mark.parametrize("kind", SUPPORTED)
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


@pytest.mark.parametrize("kind", [kind for kind in SUPPORTED if kind != "fc_autoencoder"])
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
