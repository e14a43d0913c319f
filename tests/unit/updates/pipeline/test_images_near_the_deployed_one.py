"""Images of a new version that lie near the deployed one: small patches, exact bytes, a metric that the owner bounds."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from devices.agent.patch_codec import Profile
from tests.networks import Network, cnn_1d, ds_cnn, fc_autoencoder
from updates.patches.weight_patch import encode_patch
from updates.pipeline import child, judge, post_pass
from updates.pipeline.convert import sqnr_db
from updates.pipeline.deployed_rounding import (
    CurvePoint,
    Deployed,
    Limit,
    Metric,
    Rounded,
    chosen,
    curve,
    finer,
    metric_of,
)
from updates.pipeline.quantize import best, decisive_outputs, observe
from updates.pipeline.types import Refused, TargetClass

ARENA = 1 << 20
NETWORKS = {"ds_cnn": ds_cnn, "cnn_1d": cnn_1d, "fc_autoencoder": fc_autoencoder}


def fine_tuned(network: Network) -> bytes:
    """The network with every weight moved by a tenth of its layer's spread."""
    model, random = onnx.load_from_string(network.onnx), np.random.default_rng(4)
    for initializer in model.graph.initializer:
        value = numpy_helper.to_array(initializer)
        if value.size > 8:
            moved = value + random.normal(0, 0.1 * value.std() + 1e-6, value.shape)
            initializer.CopyFrom(numpy_helper.from_array(moved.astype(np.float32), initializer.name))
    return bytes(model.SerializeToString())


@cache
def floats(kind: str) -> tuple[bytes, bytes, np.ndarray, np.ndarray]:
    """Float TFLite of both versions; calibration and other inputs in their layout."""
    network = NETWORKS[kind]()
    inputs = network.inputs(80, seed=1)
    models = []
    for model in (network.onnx, fine_tuned(network)):
        with tempfile.TemporaryDirectory() as name:
            directory = Path(name)
            (directory / "checked.onnx").write_bytes(model)
            np.save(directory / "calibration.npy", inputs)
            layout = child.run("convert", "updates.pipeline.convert:stage", directory, {"operators": []})
            models.append((directory / "float.tflite").read_bytes())
    order = (0, *(1 + axis for axis in layout["input_order"]))
    fresh = network.inputs(60, seed=9)
    return models[0], models[1], *(np.ascontiguousarray(one.transpose(order)) for one in (inputs, fresh))


@cache
def scene(kind: str, precision: str = "int8") -> tuple[bytes, bytes, Deployed]:
    """The deployed image, the plainly quantized new one, and the new version beside the deployed one."""
    first, second, inputs, _ = floats(kind)
    images = []
    for model in (first, second):
        fused = post_pass.fuse_fully_connected_relu(model)
        quantized, _ = best(fused, inputs, observe(fused, inputs), TargetClass(precision=precision))
        images.append(post_pass.post_pass(quantized, alignment=16))
    return images[0], images[1], Deployed(second, images[1], images[0], inputs)


def patch_bytes(base: bytes, image: bytes) -> int:
    return len(encode_patch(base, image, profile=Profile.L).data)


@pytest.mark.parametrize(
    "kind", ["cnn_1d", *(pytest.param(kind, marks=pytest.mark.long) for kind in ("ds_cnn", "fc_autoencoder"))]
)
def test_the_dearer_a_bit_the_smaller_the_patch_and_the_larger_the_error(kind):
    base, plain, near = scene(kind)
    _, second, _, fresh = floats(kind)
    images = [near.rounded(strength).image for strength in (0.3, 3, 30)]

    sizes = [patch_bytes(base, image) for image in images]
    wanted = decisive_outputs(second, fresh)
    noise = [sqnr_db(wanted, decisive_outputs(image, fresh)) for image in images]

    assert sizes[0] > sizes[1] > sizes[2], sizes
    assert patch_bytes(base, plain) > 2 * sizes[1], sizes
    assert noise[0] > noise[2], noise
    assert noise[0] > sqnr_db(wanted, decisive_outputs(base, fresh)) + 3, noise


@pytest.mark.parametrize(
    "precision", ["int8", *(pytest.param(other, marks=pytest.mark.long) for other in ("int16x8", "int4"))]
)
def test_an_image_runs_in_tflm_and_is_the_same_bytes_every_time(precision):
    base, plain, near = scene("ds_cnn", precision)
    image = near.rounded(1.0).image

    outputs = judge.quantized_outputs(image, ARENA, floats("ds_cnn")[3])

    assert len(image) == len(base) == len(plain)
    assert np.isfinite(outputs).all()
    assert near.rounded(1.0).image == image
    assert Deployed(floats("ds_cnn")[1], plain, base, floats("ds_cnn")[2]).rounded(1.0).image == image


def test_at_the_deployed_scales_nothing_but_weights_and_biases_changes():
    base, _, near = scene("ds_cnn")
    before, after = (post_pass.unpack(image) for image in (base, near.rounded(1.0).image))

    for one, other in zip(before.subgraphs[0].tensors, after.subgraphs[0].tensors, strict=True):
        if one.quantization is not None:
            assert np.array_equal(one.quantization.scale, other.quantization.scale)
            assert np.array_equal(one.quantization.zeroPoint, other.quantization.zeroPoint)
    assert any(
        not np.array_equal(one.data, other.data) for one, other in zip(before.buffers, after.buffers, strict=True)
    )


def test_where_values_outgrew_their_scales_those_are_new_and_all_others_stay():
    base, plain, near = scene("ds_cnn")
    deployed, wanted, found = (post_pass.unpack(image) for image in (base, plain, near.rounded(1.0, "new").image))
    outgrown = []

    for old, new, one in zip(
        deployed.subgraphs[0].tensors, wanted.subgraphs[0].tensors, found.subgraphs[0].tensors, strict=True
    ):
        if deployed.buffers[old.buffer].data is None:
            outgrown.append(bool(new.quantization.scale[0] > 1.1 * old.quantization.scale[0]))
            assert np.array_equal(one.quantization.scale, (new if outgrown[-1] else old).quantization.scale)
            assert np.array_equal(one.quantization.zeroPoint, (new if outgrown[-1] else old).quantization.zeroPoint)
    assert any(outgrown)
    assert not all(outgrown)


def test_rounding_for_accuracy_alone_is_as_true_as_the_plain_image():
    base, plain, near = scene("ds_cnn")
    _, second, _, fresh = floats("ds_cnn")
    wanted = decisive_outputs(second, fresh)

    # Whether the deployed scales clip the new version hangs on a tie in how the base was quantized; new ones are offered then.
    free = {
        scales: sqnr_db(wanted, decisive_outputs(near.rounded(0.0, scales).image, fresh)) for scales in near.activations
    }

    assert max(free.values()) > sqnr_db(wanted, decisive_outputs(plain, fresh)) - 3, free
    assert min(free.values()) > sqnr_db(wanted, decisive_outputs(base, fresh)) + 10, free


def test_the_next_points_lie_between_the_chosen_one_and_the_next_stronger():
    assert finer(4.0, (0.5, 4.0, 64.0)) == pytest.approx((8.0, 16.0, 32.0))
    assert finer(64.0, (0.5, 4.0, 64.0)) == ()
    assert finer(0.0, (0.0, 4.0)) == ()


def test_an_image_of_another_network_is_refused_with_what_differs():
    _, plain, _ = scene("ds_cnn")
    other = scene("cnn_1d")[0]

    with pytest.raises(Refused, match="operators ") as refusal:
        Deployed(floats("ds_cnn")[1], plain, other, floats("ds_cnn")[2])

    assert (refusal.value.stage, refusal.value.code) == ("against", "other_graph")


@pytest.mark.parametrize("base", [b"", b"no image at all", bytes(200)])
def test_what_is_no_image_is_refused(base):
    with pytest.raises(Refused, match=r"not a \.tflite file"):
        Deployed(floats("ds_cnn")[1], scene("ds_cnn")[1], base, floats("ds_cnn")[2])


def point(size: int, drop: float) -> CurvePoint:
    metric = Metric("accuracy", 0.95, 0.95 - drop)
    return CurvePoint(Rounded(1.0, "base", b""), size, metric, Limit().keeps(metric))


def test_the_smallest_patch_within_the_limit_is_chosen():
    points = [point(900, 0.0), point(300, 0.01), point(100, 0.011)]

    assert chosen(points) is points[1]
    assert chosen([point(100, 0.02)]) is None


def test_one_sample_more_is_beyond_the_limit():
    labels = np.zeros(200, np.int64)
    right, wrong = np.array([1.0, 0.0], np.float32), np.array([0.0, 1.0], np.float32)

    def measured(errors: int) -> Metric:
        return metric_of(np.stack([wrong] * errors + [right] * (200 - errors)), np.stack([right] * 200), labels)

    assert Limit().keeps(measured(2))
    assert not Limit().keeps(measured(3))


def test_a_better_image_than_the_float_model_has_no_loss():
    assert Metric("accuracy", 0.9, 0.92).loss == pytest.approx(-0.02)
    assert Limit().keeps(Metric("accuracy", 0.9, 0.92))
    assert Limit().keeps(Metric("error", 1.0, 1.03))
    assert not Limit().keeps(Metric("error", 1.0, 1.031))
    assert not Limit().keeps(Metric("error", 0.0, 0.1))


def test_without_labels_the_error_is_against_the_float_model():
    baseline = np.ones((4, 3), np.float32)

    assert metric_of(baseline * np.float32(1.1), baseline, None).loss == pytest.approx(0.01, rel=1e-3)
    assert metric_of(baseline, baseline, baseline * 2).value == pytest.approx(1.0)


def test_a_curve_has_each_image_once_smallest_patch_first():
    sizes = {b"a": 30, b"b": 10}
    rounded = [Rounded(1, "base", b"a"), Rounded(2, "base", b"b"), Rounded(3, "base", b"b")]

    points = curve(rounded, patch_bytes=sizes.__getitem__, measure=lambda image: Metric("error", 1.0, 1.0))

    assert [point.patch_bytes for point in points] == [10, 30]
