"""Whatever is killed, lost, doubled, late or out of order: the engine keeps its promises. `make test-long` looks deeper."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.integration.updates.campaigns.engine_machine import EngineMachine

pytestmark = pytest.mark.django_db(transaction=True)
# A walk that fails is told as it is: making it shorter took all the time that a test has. Which walks a seed gives hangs on the
# modules that are loaded, for Hypothesis tries their constants too.
EVERYWHERE = {
    "deadline": None,
    "suppress_health_check": list(HealthCheck),
    "print_blob": True,
    "phases": [Phase.generate],
}


def test_a_short_walk_breaks_no_promise() -> None:
    run_state_machine_as_test(
        EngineMachine, settings=settings(max_examples=6, stateful_step_count=40, derandomize=True, **EVERYWHERE)
    )


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_long_walk_breaks_no_promise() -> None:
    run_state_machine_as_test(
        EngineMachine, settings=settings(max_examples=40, stateful_step_count=50, derandomize=True, **EVERYWHERE)
    )
