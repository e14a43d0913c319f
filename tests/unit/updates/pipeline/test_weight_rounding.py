from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest

from tests.networks import Network, ds_cnn, fc_autoencoder
from updates.pipeline import calibration, child, post_pass, weight_rounding
from updates.pipeline.convert import sqnr_db
from updates.pipeline.quantize import best, decisive_outputs, held_out, observe, quantize
from updates.pipeline.types import TargetClass


@cache
def scene(kind: str):
    """The float network, its calibration data and what was observed."""
    import tempfile

    network: Network = {"ds_cnn": ds_cnn, "fc_autoencoder": fc_autoencoder}[kind]()
    inputs = network.inputs(96, seed=1)
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        (directory / "checked.onnx").write_bytes(network.onnx)
        np.save(directory / "calibration.npy", inputs)
        layout = child.run("convert", "updates.pipeline.convert:stage", directory, {"operators": []})
        model = post_pass.fuse_fully_connected_relu((directory / "float.tflite").read_bytes())
    order = (0, *(1 + axis for axis in layout["input_order"]))
    moved = np.ascontiguousarray(inputs.transpose(order))
    fresh = np.ascontiguousarray(network.inputs(60, seed=9).transpose(order))
    return model, moved, fresh, observe(model, moved)


@pytest.mark.parametrize(
    ("kind", "precision", "gained_db"),
    [("fc_autoencoder", "int8", 1), ("fc_autoencoder", "int4", 3), ("ds_cnn", "int4", 3)],
)
def test_error_feedback_gains_on_samples_that_it_never_saw(kind, precision, gained_db):
    model, _, fresh, observed = scene(kind)
    plain = quantize(model, observed.ranges(), TargetClass(precision=precision))
    fed_back = weight_rounding.reround(plain, model, observed.moments)
    wanted = decisive_outputs(model, fresh)

    before, after = (sqnr_db(wanted, decisive_outputs(image, fresh)) for image in (plain, fed_back))

    assert after > before + gained_db, (before, after)


def test_only_weights_and_biases_change():
    model, _, _, observed = scene("ds_cnn")
    plain = quantize(model, observed.ranges(), TargetClass())
    fed_back = weight_rounding.reround(plain, model, observed.moments)

    before, after = (post_pass.unpack(image).subgraphs[0] for image in (plain, fed_back))
    assert len(plain) == len(fed_back)
    for one, other in zip(before.tensors, after.tensors, strict=True):
        assert (one.type, list(one.shape if one.shape is not None else [])) == (
            other.type,
            list(other.shape if other.shape is not None else []),
        )
        if one.quantization is not None and one.quantization.scale is not None:
            np.testing.assert_array_equal(one.quantization.scale, other.quantization.scale)


def test_weights_that_lie_on_the_grid_stay():
    levels = np.random.default_rng(0).integers(-127, 128, (4, 9)).astype(np.float64)
    rows = np.random.default_rng(1).normal(size=(50, 9))

    np.testing.assert_array_equal(weight_rounding.fed_back(levels, rows.T @ rows, 127, 0.1), levels)


def test_the_error_on_the_data_is_less_than_by_rounding_to_nearest():
    random = np.random.default_rng(2)
    wanted = random.normal(size=(6, 20)) * 20
    rows = random.normal(size=(400, 4)) @ random.normal(size=(4, 20)) + random.normal(size=(400, 20)) * 0.1

    rounded = weight_rounding.fed_back(wanted, rows.T @ rows / 400, 127, 0.0)

    assert np.abs(rounded).max() <= 127
    assert np.square(rows @ (rounded - wanted).T).mean() < 0.3 * np.square(rows @ (np.rint(wanted) - wanted).T).mean()


def test_what_was_observed_survives_being_saved(tmp_path):
    observed = scene("ds_cnn")[3]

    calibration.save(observed, tmp_path / "o.npz")
    again = calibration.load(tmp_path / "o.npz")

    assert again.ranges(0.9) == observed.ranges(0.9)
    assert list(again.moments) == list(observed.moments)
    for name, one in observed.moments.items():
        np.testing.assert_array_equal(again.moments[name].covariance, one.covariance)


def test_ranges_are_true_ones_and_inputs_keep_theirs_when_others_are_trimmed():
    model, inputs, _, observed = scene("ds_cnn")
    name = (
        post_pass.unpack(model).subgraphs[0].tensors[int(post_pass.unpack(model).subgraphs[0].inputs[0])].name.decode()
    )

    assert observed.ranges()[name] == observed.ranges(0.9)[name] == [(float(inputs.min()), float(inputs.max()))]
    wider = [observed.ranges()[inner][0][1] - observed.ranges(0.9)[inner][0][1] for inner in observed.inner]
    assert max(wider) > 0
    assert min(wider) >= 0


def test_of_few_samples_none_is_held_out_and_rounding_is_to_nearest():
    model, inputs, _, _ = scene("ds_cnn")

    assert not held_out(15).any()
    assert held_out(16).sum() == 4
    few = observe(model, inputs[:15])
    assert few.moments == {}
    assert best(model, inputs[:15], few, TargetClass())[1] == "nearest, ranges of 100%"


def test_layers_beyond_the_memory_limit_are_rounded_to_nearest(monkeypatch):
    model, inputs, _, observed = scene("fc_autoencoder")
    monkeypatch.setattr(calibration, "_MOST_COVARIANCE_VALUES", 8 * 8 + 128 * 128)

    bounded = observe(model, inputs)

    assert len(observed.moments) == 10
    assert sorted(one.covariance.shape[-1] for one in bounded.moments.values()) == [8, 128]
    image, _ = best(model, inputs, bounded, TargetClass())
    assert len(image) == len(best(model, inputs, observed, TargetClass())[0])


@pytest.mark.parametrize("most", [None, 4])
def test_rows_of_many_samples_are_those_of_each_one_after_the_other(most):
    model = post_pass.unpack(scene("ds_cnn")[0])
    graph = model.subgraphs[0]
    random = np.random.default_rng(3)
    seen = set()
    for operator in graph.operators:
        kind = post_pass.operator_name(model, operator)
        if kind not in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"):
            continue
        shape = [int(length) for length in graph.tensors[int(operator.inputs[0])].shape][1:]
        values = random.normal(size=(3, *shape)).astype(np.float32)

        rows = calibration.rows_of(operator, kind, values, graph, most)

        alone = [calibration.rows_of(operator, kind, sample[None], graph, most) for sample in values]
        np.testing.assert_array_equal(rows, np.concatenate(alone, axis=1))
        seen.add(kind)
    assert len(seen) == 3
