"""The curve of patch bytes against the metric, and which image ships."""

from __future__ import annotations

import dataclasses
import hashlib
from functools import cache
from itertools import pairwise

import numpy as np
import pytest

from tests.unit.updates.pipeline.models import (
    convolution_model,
    convolution_nodes,
    convolution_weights,
    model,
    npz,
    request,
    samples,
)
from updates.patches.codec import build_patch
from updates.patches.decoders import READS
from updates.pipeline.bench import Bench
from updates.pipeline.build import build
from updates.pipeline.convert import fp32_outputs
from updates.pipeline.types import (
    Against,
    BuildRequest,
    BuildResult,
    Image,
    Profile,
    ValidationLimits,
    ValidationReport,
)

pytestmark = pytest.mark.usefixtures("stages_run_once")

PROFILES = (Profile("roomy"), Profile("none", slot_bytes=1024))


def retrained() -> bytes:
    """The deployed network a little further on: every weight has moved."""
    weights = convolution_weights(0)
    random = np.random.default_rng(7)
    moved = {name: value + 0.01 * random.normal(size=value.shape).astype(np.float32) for name, value in weights.items()}
    return model(convolution_nodes(), moved)


def wanted(onnx: bytes, **more: object) -> BuildRequest:
    labels = fp32_outputs(onnx, samples(120, seed=3)).argmax(1)
    made = request(onnx, labels=labels, profiles=PROFILES, calibration=npz(inputs=samples(64)))
    return dataclasses.replace(made, **more)


def against(base: bytes) -> Against:
    return Against(base, lambda image: len(build_patch(base, image, decodable=READS["l"]).payload))


@cache
def deployed() -> bytes:
    return build(wanted(convolution_model()), lambda stage, done: None).images[0].data


@cache
def built() -> BuildResult:
    return build(wanted(retrained(), against=against(deployed())), lambda stage, done: None)


def test_the_smallest_patch_within_the_limit_ships_in_the_place_of_the_plain_image() -> None:
    result = built()
    [image] = result.images
    [point] = [one for one in result.curve if one.chosen]
    plain = next(one for one in result.curve if one.strength == 0)

    assert point.digest == image.digest == result.choices[0].digest
    assert hashlib.sha256(point.data).hexdigest() == point.digest
    assert point.patch_bytes < plain.patch_bytes
    assert point.within_limit
    assert all(one.patch_bytes >= point.patch_bytes for one in result.curve if one.within_limit)
    assert [one.patch_bytes for one in result.curve] == sorted(one.patch_bytes for one in result.curve)


def test_the_exact_bytes_that_ship_were_validated_on_perturbed_samples_too() -> None:
    result = built()
    [image] = result.images

    report = result.reports[image.digest]

    assert report.verdict == "passed", report.reasons
    assert "noise-10db" in [one.name for one in report.slices]
    assert set(result.fits) == set(result.reports) == set(result.guards) == {image.digest}
    assert image.arena_bytes > 0


def test_a_profile_that_it_does_not_fit_gets_none() -> None:
    assert built().choices[1].digest is None


def test_after_a_slice_failed_the_next_patch_is_a_third_larger_and_the_plain_image_goes_in_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain = {image.digest for image in build(wanted(retrained()), lambda stage, done: None).images}
    prove, tried = Bench.proved, list[str]()

    def near_ones_fail(bench: Bench, image: Image) -> ValidationReport:
        report = prove(bench, image)
        if image.digest in plain:
            return report
        tried.append(image.digest)
        return dataclasses.replace(report, verdict="failed")

    monkeypatch.setattr(Bench, "proved", near_ones_fail)
    limits = ValidationLimits(minimum_class_samples=0, curve_accuracy_drop=1.0)
    result = build(wanted(retrained(), against=against(deployed()), limits=limits), lambda stage, done: None)

    bytes_of = {point.digest: point.patch_bytes for point in result.curve}
    sizes = [bytes_of[digest] for digest in tried]
    assert 2 <= len(sizes) <= 3
    assert sizes[0] == min(bytes_of.values())
    assert all(later >= 1.3 * size for size, later in pairwise(sizes))
    assert {image.digest for image in result.images} == plain
    assert [one.strength for one in result.curve if one.chosen] == [0]


@pytest.mark.long
def test_a_limit_that_no_point_keeps_leaves_the_plain_image() -> None:
    limits = ValidationLimits(minimum_class_samples=0, curve_accuracy_drop=-1.0)

    result = build(wanted(retrained(), against=against(deployed()), limits=limits), lambda stage, done: None)

    assert [one.strength for one in result.curve if one.chosen] == [0]
    assert result.images[0].digest == result.choices[0].digest


def test_a_deployed_image_of_another_graph_is_said_and_the_plain_image_goes() -> None:
    result = build(wanted(retrained(), against=against(one_layer_less())), lambda stage, done: None)

    assert result.curve == ()
    assert result.curve_refusal
    assert result.choices[0].digest == result.images[0].digest


def one_layer_less() -> bytes:
    nodes, weights = convolution_nodes(), convolution_weights(0)
    nodes[-1].input[0] = "f"
    weights["gw"] = weights["gw"][:8]
    kept = [*nodes[:4], nodes[-1]]
    used = {name: value for name, value in weights.items() if any(name in node.input for node in kept)}
    return build(wanted(model(kept, used)), lambda stage, done: None).images[0].data
