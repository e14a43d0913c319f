"""Commands, and what a node says of itself: a success that is not proved decides nothing."""

from __future__ import annotations

import pytest

from devices.links.lorawan import visit
from devices.links.lorawan.models import CommandExchange, LoRaWanDevice
from devices.models import UNPROVED, LinkEvent
from devices.tasks import feed_lorawan
from tests.integration.lorawan.conftest import Scene
from tests.integration.lorawan.test_bringing_a_bundle import state

REVERT = b"\x01" + bytes(16)
NEW = bytes(reversed(range(32)))


def test_a_command_goes_confirmed_and_its_answer_ends_it(scene: Scene) -> None:
    delivery = scene.command(REVERT)
    scene.run(lambda: state(delivery) == "delivered")
    assert scene.far_end.enqueued[-1].confirmed
    assert scene.radio.got[-1] == REVERT


def test_a_command_that_was_not_acknowledged_is_repeated(scene: Scene) -> None:
    delivery = scene.command(REVERT)
    heard = scene.radio.hear
    scene.radio.hear = lambda port, data: None  # type: ignore[method-assign]
    for _ in range(6):
        scene.radio.uplink()
        feed_lorawan()
    scene.radio.hear = heard  # type: ignore[method-assign]
    scene.run(lambda: state(delivery) == "delivered", uplinks=8)


def test_an_acknowledged_command_without_an_answer_counts_as_delivered(scene: Scene) -> None:
    delivery = scene.command(REVERT)
    scene.radio.hear = lambda port, data: None  # type: ignore[method-assign]
    scene.run(lambda: state(delivery) == "delivered", uplinks=8)
    assert CommandExchange.objects.get(delivery=delivery).attempts == 1


def test_a_refused_command_fails(scene: Scene) -> None:
    delivery = scene.command(REVERT)
    scene.radio.hear = lambda port, data: scene.radio.outbox.append((26, b"\x40\x01\x11"))  # type: ignore[method-assign]
    scene.run(lambda: state(delivery) == "failed", uplinks=8)
    assert scene.last("failed").cause == "command-refused"


def test_a_node_that_is_busy_is_told_again(scene: Scene) -> None:
    delivery = scene.command(REVERT)
    heard = scene.radio.hear
    scene.radio.hear = lambda port, data: scene.radio.outbox.append((26, b"\x40\x01\x10"))  # type: ignore[method-assign]
    for _ in range(4):
        scene.radio.uplink()
        feed_lorawan()
    assert state(delivery) == "waiting"
    scene.radio.hear = heard  # type: ignore[method-assign]
    scene.run(lambda: state(delivery) == "delivered", uplinks=8)


def confirm(scene: Scene, digest: bytes) -> None:
    scene.radio.digest, scene.radio.state, scene.radio.sequence = digest, 4, scene.radio.sequence + 1


def test_a_success_with_its_digest_is_passed_on_after_what_the_node_holds(scene: Scene) -> None:
    confirm(scene, NEW)
    scene.radio.tell()
    scene.run(lambda: scene.events()[2:] == ["holds", "report"], uplinks=4)
    assert scene.last("holds").digest == NEW.hex()
    assert scene.last("report").cause == ""


@pytest.mark.parametrize("room", [32, 9])
def test_a_success_without_its_digest_is_asked_for_and_passed_on_once_proved(scene: Scene, room: int) -> None:
    confirm(scene, NEW)
    scene.radio.digest_room = room
    scene.radio.outbox.append((26, scene.radio.report()))
    scene.radio.uplink()
    feed_lorawan()
    assert scene.events() == ["holds", "report"]
    scene.run(lambda: len(scene.events()) >= 4, uplinks=12)
    assert b"\x02" in scene.radio.got
    assert scene.events()[2:] == ["holds", "report"]
    assert scene.last("holds").digest == NEW.hex()


def test_a_success_that_is_never_proved_is_passed_on_as_unproved(scene: Scene) -> None:
    confirm(scene, NEW)
    scene.radio.hear = lambda port, data: None  # type: ignore[method-assign]
    scene.radio.outbox.append((26, scene.radio.report()))
    scene.run(lambda: len(scene.events()) >= 3, uplinks=60)
    assert scene.last("report").cause == UNPROVED
    asked = [item for item in scene.far_end.enqueued if item.data == b"\x02"]
    assert len(asked) == visit.ASKS_MAX
    assert LoRaWanDevice.objects.get(node=scene.node).claim is None


def test_a_digest_that_does_not_begin_like_the_report_is_dropped(scene: Scene) -> None:
    scene.radio.outbox.append((26, b"\x30\x01" + NEW))
    scene.radio.outbox.append((26, scene.radio.report()))
    for _ in range(2):
        scene.radio.uplink()
    feed_lorawan()
    assert scene.events() == ["holds", "report", "report"]
    assert LoRaWanDevice.objects.get(node=scene.node).digest_parts == {}


def confirmed_with(scene: Scene, digest: bytes, *, lost_between: int) -> None:
    """The node's claim of success for NEW after another digest, and so many frames between them that are lost."""
    confirm(scene, NEW)
    claim = scene.radio.report()
    frames_sent = [scene.radio.event(26, b"\x30\x01" + digest)]
    for _ in range(lost_between):
        scene.radio.event(26, claim)
    frames_sent.append(scene.radio.event(26, claim))
    for event in frames_sent:
        assert scene.far_end.post("up", event)[0] == 204
        feed_lorawan()


def test_a_claim_right_after_another_digest_is_passed_on_with_what_the_node_holds(scene: Scene) -> None:
    old = scene.radio.digest
    confirmed_with(scene, old, lost_between=0)
    assert scene.events()[2:] == ["holds", "report"]
    assert (scene.last("holds").digest, scene.last("report").cause) == (old.hex(), "")


def test_a_claim_after_a_gap_waits_for_its_own_digest(scene: Scene) -> None:
    confirmed_with(scene, scene.radio.digest, lost_between=1)
    assert scene.events() == ["holds", "report"]
    assert LoRaWanDevice.objects.get(node=scene.node).claim is not None


def test_digest_parts_and_report_may_change_places(scene: Scene) -> None:
    confirm(scene, NEW)
    scene.radio.digest_room = 16
    scene.radio.tell()
    sent = [scene.radio.event(port, data) for port, data in scene.radio.outbox]
    for event in (sent[2], sent[1], sent[0]):
        assert scene.far_end.post("up", event)[0] == 204
        feed_lorawan()
    assert scene.events()[2:] == ["holds", "report"]
    assert scene.last("holds").digest == NEW.hex()


def test_health_parts_are_passed_on_as_they_came(scene: Scene) -> None:
    scene.radio.outbox.append((26, b"\x20\x01\x01abc"))
    scene.radio.uplink()
    feed_lorawan()
    assert bytes(scene.last("report").payload or b"") == b"\x20\x01\x01abc"


def test_unreadable_bytes_are_a_sign_of_life_and_nothing_else(scene: Scene) -> None:
    before = LinkEvent.objects.count()
    for data in (b"\xff", b"\x14", b"\x40\x01"):
        scene.radio.outbox.append((26, data))
        scene.radio.uplink()
    scene.radio.outbox.append((201, b"\xff\xff"))
    scene.radio.uplink()
    feed_lorawan()
    assert LinkEvent.objects.count() == before
    assert scene.node.radio.frame_counter == 5
