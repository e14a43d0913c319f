"""The simulated node and the pipeline compute the self-test apart; the published vectors bind both."""

from __future__ import annotations

import pytest

from devices.simulator.self_test import golden_input as of_the_node
from updates.pipeline.self_test import golden_input as of_the_server

VECTORS = {0: "ea02cede91590bbf", 3: "bf6af997220e06ce"}


@pytest.mark.parametrize("window", VECTORS)
def test_both_sides_begin_as_the_published_vector(window: int) -> None:
    assert of_the_node(window, 8).hex() == of_the_server(window, 8).hex() == VECTORS[window]


@pytest.mark.parametrize("size", [1, 31, 32, 33, 600])
def test_both_sides_fill_a_tensor_of_any_size_alike(size: int) -> None:
    assert of_the_node(1, size) == of_the_server(1, size)
    assert len(of_the_node(1, size)) == size
