from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.unit.updates.pipeline.models import model
from updates.pipeline.check import check
from updates.pipeline.types import Refused


def refusal(nodes: list[onnx.NodeProto], **constants: np.ndarray) -> Refused:
    with pytest.raises(Refused) as caught:
        check(model(nodes, constants))
    assert caught.value.stage == "check"
    return caught.value


def inner(*nodes: onnx.NodeProto, name: str = "inner") -> onnx.GraphProto:
    out = helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, None)
    return helper.make_graph(list(nodes), name, [], [out])


def test_an_early_exit_is_named():
    leave = inner(helper.make_node("Identity", ["x"], ["a"]))
    go_on = inner(helper.make_node("Relu", ["x"], ["b"]))
    nodes = [
        helper.make_node("Cast", ["x"], ["sure"], to=TensorProto.BOOL),
        helper.make_node("If", ["sure"], ["y"], "early_exit", then_branch=leave, else_branch=go_on),
    ]

    refused = refusal(nodes)

    assert (refused.code, refused.field) == ("data_dependent_operator", "If (early_exit)")


def test_a_loop_is_named():
    body = inner(helper.make_node("Relu", ["x"], ["b"]))

    assert refusal([helper.make_node("Loop", ["", "", "x"], ["y"], "refine", body=body)]).field == "Loop (refine)"


def test_what_hides_in_inner_graphs_is_named_with_its_path():
    deepest = inner(helper.make_node("NonZero", ["x"], ["z"], "peaks"))
    middle = inner(helper.make_node("If", ["c"], ["m"], "gate", then_branch=deepest, else_branch=deepest))

    refused = refusal([helper.make_node("Scan", ["x"], ["y"], "walk", body=middle, num_scan_inputs=1)])

    assert refused.field == "Scan (walk)"
    assert "Scan (walk) > If (gate)" in refused.message
    assert "Scan (walk) > If (gate) > NonZero (peaks)" in refused.message


def test_token_pruning_is_named():
    """Keeps the tokens that score above the mean: how many are left, no one knows beforehand."""
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["m"]),
        helper.make_node("Greater", ["x", "m"], ["kept"]),
        helper.make_node("Compress", ["x", "kept"], ["y"], "prune_tokens"),
    ]

    assert refusal(nodes).field == "Compress (prune_tokens)"


def test_a_top_k_whose_k_is_computed_is_named():
    nodes = [
        helper.make_node("ReduceSum", ["x"], ["s"], keepdims=0),
        helper.make_node("Cast", ["s"], ["k"], to=TensorProto.INT64),
        helper.make_node("TopK", ["x", "k"], ["y", "i"], "adaptive"),
    ]

    assert refusal(nodes).field == "TopK (adaptive)"


def test_a_slice_whose_end_is_computed_is_named():
    nodes = [
        helper.make_node("ArgMax", ["x"], ["end"]),
        helper.make_node("Slice", ["x", "from", "end"], ["y"], "crop"),
    ]

    assert refusal(nodes, **{"from": np.zeros(1, np.int64)}).field == "Slice (crop)"


def test_a_random_operator_is_named():
    refused = refusal([helper.make_node("RandomNormalLike", ["x"], ["y"], "dropout")])

    assert (refused.code, refused.field) == ("random_operator", "RandomNormalLike (dropout)")


def test_a_top_k_of_constants_and_a_shape_computed_from_fixed_shapes_are_allowed():
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Gather", ["shape", "first"], ["batch"]),
        helper.make_node("Concat", ["batch", "rest"], ["wanted"], axis=0),
        helper.make_node("Reshape", ["x", "wanted"], ["flat"], "flatten"),
        helper.make_node("TopK", ["flat", "k"], ["y", "i"], "best"),
    ]
    constants = {"first": np.array([0]), "rest": np.array([-1]), "k": np.array([4])}

    _, facts = check(model(nodes, constants))

    assert facts["output_shape"] == [1, 4]


def test_weights_in_an_inner_graph_are_checked_too():
    branch = inner(helper.make_node("Identity", ["w"], ["a"]))
    branch.initializer.append(numpy_helper.from_array(np.array([np.nan], np.float32), "w"))
    nodes = [helper.make_node("If", ["c"], ["y"], "gate", then_branch=branch, else_branch=branch)]

    assert refusal(nodes, c=np.array(True)).code == "not_finite"
