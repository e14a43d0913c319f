from __future__ import annotations

import pytest

from devices.wire import NodeState, decode_state
from tests.unit.devices.agent_bench import BASE, PREIMAGE, SELF_TEST, TARGET, boot, install, manifest, new_node, stage
from updates.patches.revert import revert_command


def test_an_update_is_staged_tried_and_confirmed() -> None:
    agent = new_node()
    assert install(agent, 1) == "none"
    assert agent.image(agent.running_slot) == TARGET
    report = decode_state(agent.state_report())
    assert (report.state, report.sequence_low) == (NodeState.CONFIRMED, 1)


def test_a_wrong_self_test_reverts_and_the_sequence_stays_used() -> None:
    agent = new_node()
    assert stage(agent, 5) == "none"
    agent.trial_begin()
    assert agent.self_test_result(b"otherone") == "self-test-failed"
    assert (agent.state, agent.image(agent.running_slot)) == ("reverted", BASE)
    assert agent.begin(manifest(5)) == "lower-sequence"


def test_confirming_before_the_self_test_is_not_allowed() -> None:
    agent = new_node()
    stage(agent, 1)
    agent.trial_begin()
    assert agent.confirm() == "not-allowed"


def test_wrong_bytes_end_in_a_bad_digest() -> None:
    agent = new_node()
    agent.begin(manifest(1))
    agent.stage_write(0, bytes(len(TARGET)))
    assert agent.stage_finish() == "bad-digest"
    assert (agent.state, agent.image(agent.running_slot)) == ("failed", BASE)


def test_a_revert_command_needs_the_preimage_and_works_once() -> None:
    agent = new_node()
    install(agent, 3)
    assert agent.command(revert_command(b"q" * 16)) == "not-allowed"
    assert agent.command(revert_command(PREIMAGE)) == "none"
    assert (agent.state, agent.cause, agent.image(agent.running_slot)) == ("reverted", "commanded", BASE)
    assert agent.highest_sequence == 3
    assert agent.command(revert_command(PREIMAGE)) == "not-allowed"


def test_a_revert_onto_a_damaged_previous_slot_is_refused() -> None:
    agent = new_node()
    install(agent, 3)
    agent.flash.slots[0][5] ^= 1
    assert agent.command(revert_command(PREIMAGE)) == "no-previous"
    assert agent.image(agent.running_slot) == TARGET


def test_a_reboot_during_a_trial_reverts() -> None:
    agent = new_node()
    stage(agent, 1)
    agent.trial_begin()
    agent.self_test_result(SELF_TEST)
    agent = boot(agent.flash, reset_cause="watchdog")
    assert (agent.state, agent.cause, agent.image(agent.running_slot)) == ("reverted", "watchdog", BASE)


@pytest.mark.parametrize("fuse", range(34))
def test_a_power_cut_at_any_flash_operation_leaves_an_intact_slot(fuse: int) -> None:
    agent = new_node()
    agent.flash.fuse = fuse
    install(agent, 1)
    agent.flash.fuse = None
    agent = boot(agent.flash)
    assert agent.image(agent.running_slot) in (BASE, TARGET)
    assert install(agent, 2) == "none"
