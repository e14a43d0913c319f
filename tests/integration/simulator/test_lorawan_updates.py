from __future__ import annotations

import hashlib
import itertools
from pathlib import Path
from typing import Any

import pytest

from devices.wire import Cause, NodeState
from tests.integration.devices.simulated import OLD, OLD_DIGEST, PREIMAGE, TARGET, TARGET_DIGEST, bundle
from tests.integration.simulator.application import fragments, parity_row
from tests.integration.simulator.radio_fleet import Scene, node_spec, scene

SIZE = 239
IDLE, STAGED, TRIAL, CONFIRMED, REVERTED, FAILED, REJECTED = (
    int(NodeState[name]) for name in ("IDLE", "STAGED", "TRIAL", "CONFIRMED", "REVERTED", "FAILED", "REJECTED")
)


def ended(at: Scene, state: int, cause: Cause = Cause.NONE) -> bool:
    """Whether a report says so whose digest came just before it."""
    told = [data for data in at.uplinks(26) if data[0] >> 4 in (1, 3)]
    return any(
        report[:2] == bytes([0x10 | state, cause]) and digest[0] == 0x30 for digest, report in itertools.pairwise(told)
    )


def install(at: Scene, block: bytes, state: int, cause: Cause = Cause.NONE, **sending: Any) -> None:
    at.receiver.wait(lambda: at.states())
    at.application.send_block(at.dev_eui, block, SIZE, **sending)
    at.receiver.wait(lambda: ended(at, state, cause), 60)


def test_a_node_takes_tries_and_confirms_a_full_image(tmp_path: Path) -> None:
    with scene(tmp_path) as at:
        install(at, bundle(), CONFIRMED)
        assert at.uplinks(201)[0] == b"\x02\x00"
        order = list(dict.fromkeys(at.states()))
        assert order == [IDLE, STAGED, TRIAL, CONFIRMED]
        assert at.digests()[-1].hex() == TARGET_DIGEST
        status = at.status()
        assert (status["active"], status["standby"], status["state"]) == (TARGET_DIGEST, OLD_DIGEST, "confirmed")


def test_a_node_applies_a_patch_to_the_bytes_it_holds(tmp_path: Path) -> None:
    target = OLD[:2000] + b"\x05\x06\x07" + OLD[2003:]
    with scene(tmp_path) as at:
        install(at, bundle(target, base=OLD), CONFIRMED)
        assert at.status()["active"] == hashlib.sha256(target).hexdigest()


@pytest.mark.parametrize("dialect", ["ts004-v1", "ts004-v2"])
def test_parity_recovers_what_the_air_lost(tmp_path: Path, dialect: Any) -> None:
    with scene(tmp_path, node_spec(loss=0.1, forward_error_correction=dialect, wake_interval_s=30.0)) as at:
        at.receiver.wait(lambda: at.states())
        rows = fragments(bundle(), SIZE)
        setup = bytes([2, 0, len(rows), 0, SIZE, 0, len(rows) * SIZE - len(bundle())]) + b"abcd"
        while at.uplinks(201)[-1:] != [b"\x02\x00"]:  # the setup itself has no redundancy
            sent = len(at.receiver.named("txack"))
            at.application.enqueue(at.dev_eui, 201, setup)
            at.receiver.wait(lambda sent=sent: len(at.receiver.named("txack")) > sent or at.uplinks(201), 30)
        for number, row in enumerate(rows, 1):
            if number not in (2, 5, 6):  # and three more are lost for certain
                at.application.enqueue(at.dev_eui, 201, b"\x08" + number.to_bytes(2, "little") + row)
        for number in range(1, 25):
            row = parity_row(rows, number, dialect)
            at.application.enqueue(at.dev_eui, 201, b"\x08" + (len(rows) + number).to_bytes(2, "little") + row)
        at.receiver.wait(lambda: CONFIRMED in at.states(), 60)
        assert at.status()["active"] == TARGET_DIGEST


def test_a_status_request_tells_what_is_missing(tmp_path: Path) -> None:
    with scene(tmp_path) as at:
        at.receiver.wait(lambda: at.states())
        rows = fragments(bundle(), SIZE)
        at.application.enqueue(at.dev_eui, 201, bytes([2, 0, len(rows), 0, SIZE, 0, 0]) + b"abcd")
        for number in (1, 3):
            at.application.enqueue(at.dev_eui, 201, b"\x08" + number.to_bytes(2, "little") + rows[number - 1])
        at.application.enqueue(at.dev_eui, 201, b"\x01\x01")
        answer = at.receiver.wait(lambda: [data for data in at.uplinks(201) if data[0] == 1])[0]
        assert answer == bytes([1, 2, 0, len(rows) - 2, 0])


@pytest.mark.parametrize(
    ("package", "cause"),
    [
        (lambda: bundle(class_hash=b"othr"), Cause.WRONG_CLASS),
        (lambda: bundle(TARGET + bytes(32), base=TARGET, self_test=bytes(8)), Cause.WRONG_BASE),
        (lambda: bundle()[:60] + b"\x00" + bundle()[61:], Cause.BAD_SIGNATURE),
        (lambda: b"\xff\xff" + bytes(4000), Cause.BAD_FORMAT),
    ],
    ids=["class", "base", "signature", "endless"],
)
def test_a_refused_manifest_is_reported_before_the_rest_has_come(tmp_path: Path, package: Any, cause: Cause) -> None:
    with scene(tmp_path) as at:
        install(at, package(), REJECTED, cause)
        assert at.stand_in.call(lambda fleet: next(iter(fleet.nodes.values())).transport.session.received) == 1
        assert (at.status()["active"], at.status()["standby"]) == (OLD_DIGEST, "")


def test_a_corrupt_payload_fails_and_the_old_image_stays(tmp_path: Path) -> None:
    good = bundle()
    with scene(tmp_path) as at:
        install(at, good[:-1] + bytes([good[-1] ^ 1]), FAILED, Cause.BAD_DIGEST)
        assert at.status()["active"] == OLD_DIGEST


def test_a_failing_self_test_reverts_the_node(tmp_path: Path) -> None:
    with scene(tmp_path, node_spec(behaviour="failing-self-test")) as at:
        install(at, bundle(), REVERTED, Cause.SELF_TEST_FAILED)
        assert at.status()["active"] == OLD_DIGEST


def test_an_image_that_the_interpreter_cannot_run_ends_in_a_watchdog_reset_and_a_new_join(tmp_path: Path) -> None:
    with scene(tmp_path) as at:
        install(at, bundle(TARGET[:8] + bytes(600), self_test=bytes(8)), REVERTED, Cause.WATCHDOG)
        assert (at.status()["active"], at.status()["reboots"]) == (OLD_DIGEST, 1)
        assert len(at.receiver.named("join")) == 2


def test_a_reset_forgets_the_fragments_and_joins_again(tmp_path: Path) -> None:
    with scene(tmp_path, node_spec(behaviour="reboot")) as at:
        at.receiver.wait(lambda: at.states())
        at.application.send_block(at.dev_eui, bundle(), SIZE)
        at.receiver.wait(lambda: len(at.receiver.named("join")) == 2, 40)
        assert at.application.queue(at.dev_eui) == []
        assert (at.status()["reboots"], at.status()["package_bytes"]) == (1, 0)
        install(at, bundle(), CONFIRMED)
        assert at.status()["active"] == TARGET_DIGEST


def test_a_liar_claims_the_target_and_its_digest_gives_it_away(tmp_path: Path) -> None:
    with scene(tmp_path, node_spec(behaviour="liar")) as at:
        install(at, bundle(), CONFIRMED)
        claim = next(data for data in at.uplinks(26) if data[0] == 0x10 | CONFIRMED)
        assert claim[2:6] == bytes.fromhex(TARGET_DIGEST)[:4]
        assert at.digests()[-1].hex() == OLD_DIGEST
        assert at.status()["active"] == OLD_DIGEST


def test_a_silent_node_goes_for_good_when_it_is_offered_an_update(tmp_path: Path) -> None:
    with scene(tmp_path, node_spec(behaviour="silent"), node_spec("witness")) as at:
        at.receiver.wait(lambda: at.states())
        at.application.send_block(at.dev_eui, bundle(), SIZE)
        at.receiver.wait(lambda: at.receiver.named("txack"))
        heard = len([event for event in at.receiver.named("up") if event.device_info.dev_eui == at.dev_eui])
        everyone = len(at.receiver.named("up"))
        at.receiver.wait(lambda: len(at.receiver.named("up")) > everyone + 5)
        assert heard == len([event for event in at.receiver.named("up") if event.device_info.dev_eui == at.dev_eui])


def test_a_node_that_never_comes_does_not_join(tmp_path: Path) -> None:
    with scene(tmp_path, node_spec(behaviour="never"), node_spec("witness")) as at:
        at.receiver.wait(lambda: len(at.receiver.named("up")) > 5)
        assert {event.device_info.device_name for event in at.receiver.named("up")} == {"witness"}
        assert at.status()["active"] == OLD_DIGEST


def revert(preimage: bytes) -> bytes:
    return b"\x01" + preimage


def answers(at: Scene) -> list[bytes]:
    return [data for data in at.uplinks(26) if data[0] == 0x40]


def test_only_the_right_revert_command_sends_a_node_back_and_twice_does_no_harm(tmp_path: Path) -> None:
    with scene(tmp_path) as at:
        install(at, bundle(), CONFIRMED)
        for number, preimage in enumerate((b"q" * 16, PREIMAGE, PREIMAGE), 1):
            at.application.enqueue(at.dev_eui, 26, revert(preimage), confirmed=True)
            at.receiver.wait(lambda number=number: len(answers(at)) == number)
        assert answers(at) == [bytes([0x40, 1, Cause.NOT_ALLOWED]), b"\x40\x01\x00", b"\x40\x01\x00"]
        at.receiver.wait(lambda: ended(at, REVERTED, Cause.COMMANDED))
        assert (at.status()["active"], at.status()["standby"]) == (OLD_DIGEST, TARGET_DIGEST)
        at.receiver.wait(lambda: len(at.receiver.named("ack")) == 3)


def test_a_node_that_lost_its_previous_image_refuses_to_go_back(tmp_path: Path) -> None:
    with scene(tmp_path, node_spec(behaviour="lost-previous")) as at:
        install(at, bundle(), CONFIRMED)
        at.application.enqueue(at.dev_eui, 26, revert(PREIMAGE), confirmed=True)
        at.receiver.wait(lambda: answers(at))
        assert answers(at) == [bytes([0x40, 1, Cause.NO_PREVIOUS])]
        assert at.status()["active"] == TARGET_DIGEST


def test_a_node_tells_what_it_holds_when_it_is_asked(tmp_path: Path) -> None:
    with scene(tmp_path) as at:
        at.receiver.wait(lambda: len(at.states()) > 1)
        assert len(at.digests()) == 1
        at.application.enqueue(at.dev_eui, 26, b"\x02")
        at.receiver.wait(lambda: len(at.digests()) == 2)
        at.receiver.wait(lambda: at.uplinks(26)[-1][0] >> 4 == 1)


def test_an_unknown_command_is_answered_as_bad_format(tmp_path: Path) -> None:
    with scene(tmp_path) as at:
        at.receiver.wait(lambda: at.states())
        at.application.enqueue(at.dev_eui, 26, b"\x7f\x01")
        at.receiver.wait(lambda: answers(at))
        assert answers(at) == [bytes([0x40, 0x7F, Cause.BAD_FORMAT])]


def test_an_image_that_hears_nothing_from_the_network_is_undone(tmp_path: Path) -> None:
    with scene(tmp_path, node_spec(wake_interval_s=20.0)) as at:
        at.receiver.wait(lambda: at.states())
        at.application.send_block(at.dev_eui, bundle(), SIZE)
        at.receiver.wait(lambda: STAGED in at.states(), 30)
        at.stand_in.call(_cut_off)
        at.receiver.wait(lambda: ended(at, REVERTED, Cause.NO_SERVER_CONTACT), 60)
        assert at.status()["active"] == OLD_DIGEST


def _cut_off(fleet: Any) -> None:
    node = next(iter(fleet.nodes.values()))
    node.modem.links = {key: type(link)(link.loss_up, 1.0) for key, link in node.modem.links.items()}


def test_health_comes_in_parts_that_carry_one_report(tmp_path: Path) -> None:
    with scene(tmp_path, node_spec(health_every_wakes=2)) as at:
        parts = at.receiver.wait(lambda: [data for data in at.uplinks(26) if data[0] >> 4 == 2], 30)
        count = parts[0][2]
        at.receiver.wait(lambda: len([data for data in at.uplinks(26) if data[0] >> 4 == 2]) >= count, 30)
        parts = [data for data in at.uplinks(26) if data[0] >> 4 == 2][:count]
        assert [part[0] & 15 for part in parts] == list(range(count))
        assert all(len(part) <= 36 for part in parts)


def test_a_slower_data_rate_comes_when_it_is_due(tmp_path: Path) -> None:
    with scene(tmp_path, node_spec(data_rates=((0.0, 5), (300.0, 2)))) as at:
        rates = at.receiver.wait(lambda: (seen := [event.dr for event in at.receiver.named("up")])[-1:] == [2] and seen)
        assert rates[0] == 5
        assert rates == sorted(rates, reverse=True)
