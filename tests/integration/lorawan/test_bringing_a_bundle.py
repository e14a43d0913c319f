"""A bundle goes over real gRPC and HTTP sockets to a class A node; whatever is lost on the way is made up for."""

from __future__ import annotations

import random
import threading

import grpc
import pytest
from django.db import connection
from django.utils import timezone

from devices.links import link_for
from devices.links.lorawan import feeder, visit
from devices.links.lorawan.fragmentation import Dialect, number_of
from devices.links.lorawan.models import FragmentSession, LoRaWanDevice, NetworkEvent
from devices.models import Delivery, LinkEvent, LinkKind
from devices.tasks import feed_lorawan
from tests.integration.lorawan.conftest import Scene
from tests.integration.lorawan.far_end import DOWNLINK_BYTES

BUNDLE = random.Random(5).randbytes(1200)


def state(delivery: Delivery) -> str:
    return str(Delivery.objects.values_list("state", flat=True).get(pk=delivery.pk))


def test_what_a_node_holds_is_known_from_its_digest_and_report(scene: Scene) -> None:
    assert scene.events() == ["holds", "report"]
    assert scene.last("holds").digest == bytes(range(32)).hex()


def test_a_bundle_arrives_whole_and_the_engine_hears_of_each_step(scene: Scene) -> None:
    delivery = scene.offer(BUNDLE)
    scene.run(lambda: state(delivery) == "delivered")
    assert scene.radio.block() == BUNDLE
    kinds = scene.events()
    assert kinds.index("offered") < kinds.index("progress") < kinds.index("delivered")
    assert scene.last("delivered").reference == 1
    progress = LinkEvent.objects.filter(kind="progress").order_by("id").last()
    assert progress is not None and (progress.total_bytes or 0) >= len(BUNDLE)


def test_a_node_that_accepts_the_set_up_has_begun_before_its_first_fragment_is_sent(scene: Scene) -> None:
    scene.offer(BUNDLE)
    scene.run(lambda: "progress" in scene.events())
    assert scene.radio.seen_numbers == []
    begun = LinkEvent.objects.get(kind="progress")
    assert begun.received_bytes == 0
    assert (begun.total_bytes or 0) >= len(BUNDLE)


def test_the_bundle_of_the_base_that_the_node_proved_is_taken(scene: Scene) -> None:
    delivery = scene.offer(b"patch" * 40, base=bytes(range(32)))
    scene.run(lambda: state(delivery) == "delivered")
    assert scene.radio.block() == b"patch" * 40
    assert scene.last("offered").digest == bytes(range(32)).hex()


def test_a_base_without_a_bundle_fails_the_delivery(scene: Scene) -> None:
    delivery = scene.offer(b"patch", base=bytes(32))
    feed_lorawan()
    assert state(delivery) == "failed"
    assert scene.last("failed").cause == "no-bundle-for-base"


def test_two_frames_or_more_are_ahead_while_fragments_flow(scene: Scene) -> None:
    scene.radio.rate = 0
    delivery = scene.offer(BUNDLE)
    scene.run(lambda: scene.radio.seen_numbers)
    scene.radio.ahead.clear()
    session = FragmentSession.objects.get(delivery=delivery)
    scene.run(lambda: len(scene.radio.seen_numbers) >= session.fragments - 2)
    assert min(scene.radio.ahead) >= 2
    assert max(scene.radio.ahead) <= 8


def test_no_number_is_queued_twice_in_a_session(scene: Scene) -> None:
    scene.radio.loss = 0.3
    delivery = scene.offer(BUNDLE)
    scene.run(lambda: state(delivery) == "delivered")
    numbers = [number_of(item.data) for item in scene.far_end.enqueued if number_of(item.data) is not None]
    assert len(numbers) == len(set(numbers))


@pytest.mark.parametrize("dialect", list(Dialect))
def test_lost_fragments_are_repaired_with_fresh_parity(scene: Scene, dialect: Dialect) -> None:
    scene.node.firmware_build.forward_error_correction = str(dialect)  # type: ignore[union-attr]
    scene.node.firmware_build.save()  # type: ignore[union-attr]
    scene.radio.dialect, scene.radio.loss, scene.radio.rate = dialect, 0.25, 3
    delivery = scene.offer(BUNDLE)
    scene.run(lambda: state(delivery) == "delivered")
    assert scene.radio.block() == BUNDLE
    session = FragmentSession.objects.get(delivery=delivery)
    assert max(scene.radio.seen_numbers) > session.fragments
    assert session.restarts == 0


def test_more_loss_takes_more_uplinks_and_still_ends_right(scene: Scene) -> None:
    first = scene.offer(BUNDLE)
    without = scene.run(lambda: state(first) == "delivered")
    scene.radio.loss, scene.radio.state = 0.4, 0
    second = scene.offer(BUNDLE[::-1], reference=2)
    with_loss = scene.run(lambda: state(second) == "delivered", uplinks=1000)
    assert scene.radio.block() == BUNDLE[::-1]
    assert with_loss > without


def test_a_join_sets_the_session_up_again(scene: Scene) -> None:
    delivery = scene.offer(BUNDLE)
    scene.run(lambda: len(scene.radio.seen_numbers) > 5)
    scene.radio.join()
    scene.run(lambda: state(delivery) == "delivered")
    assert scene.radio.block() == BUNDLE
    assert FragmentSession.objects.get(delivery=delivery).restarts == 1


def test_after_a_reset_to_another_image_the_bundle_of_that_base_follows(scene: Scene) -> None:
    other = bytes(reversed(range(32)))
    delivery = scene.offer(BUNDLE)
    scene.run(lambda: len(scene.radio.seen_numbers) > 5)
    scene.radio.digest = other
    scene.radio.join()
    scene.run(lambda: state(delivery) == "delivered")
    assert LoRaWanDevice.objects.get(node=scene.node).holds == other.hex()


def test_a_fall_of_the_data_rate_sets_it_up_with_smaller_fragments(scene: Scene) -> None:
    delivery = scene.offer(2 * BUNDLE)
    scene.run(lambda: len(scene.radio.seen_numbers) > 5)
    assert scene.radio.setup[4] == 239
    scene.radio.rate = 1
    scene.run(lambda: state(delivery) == "delivered")
    assert scene.radio.setup[4] == 48
    assert scene.radio.block() == 2 * BUNDLE


def test_a_limit_that_chirpstack_names_is_kept_to(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DOWNLINK_BYTES, 5, 100)
    delivery = scene.offer(BUNDLE)
    scene.run(lambda: state(delivery) == "delivered")
    assert scene.radio.setup[4] == 97
    assert scene.radio.block() == BUNDLE


def test_cancelling_empties_the_queue_with_the_next_tick(scene: Scene) -> None:
    delivery = scene.offer(BUNDLE)
    scene.run(lambda: len(scene.radio.seen_numbers) > 5)
    assert scene.far_end.queues[scene.radio.dev_eui]
    assert link_for(LinkKind.LORAWAN).cancel(references=[1], now=timezone.now()) == 1
    feed_lorawan()
    assert scene.far_end.queues[scene.radio.dev_eui] == []
    before = len(scene.far_end.enqueued)
    for _ in range(3):
        scene.radio.uplink()
        feed_lorawan()
    assert len(scene.far_end.enqueued) == before
    assert state(delivery) == "cancelled"


def test_a_cancel_reaches_the_queue_though_chirpstack_was_away(scene: Scene) -> None:
    scene.offer(BUNDLE)
    scene.run(lambda: len(scene.radio.seen_numbers) > 5)
    scene.far_end.refuse["FlushQueue"] = grpc.StatusCode.UNAVAILABLE
    link_for(LinkKind.LORAWAN).cancel(references=[1], now=timezone.now())
    feed_lorawan()
    assert scene.far_end.queues[scene.radio.dev_eui]
    scene.far_end.refuse.clear()
    feeder.feed(now=timezone.now() + feeder.RETRY)
    assert scene.far_end.queues[scene.radio.dev_eui] == []


def test_a_kill_between_queueing_and_writing_it_down_sends_no_number_twice(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.radio.rate = 1  # many small fragments, so that there are refills to kill
    scene.radio.uplink()
    feed_lorawan()
    delivery = scene.offer(BUNDLE)
    scene.run(lambda: len(scene.radio.seen_numbers) > 2)

    class Killed(BaseException):
        pass

    def killed(*_: object) -> None:
        raise Killed

    kills = 0
    for _ in range(30):
        scene.radio.uplink()
        monkeypatch.setattr(feeder, "_settle", killed)
        try:
            feed_lorawan()
        except Killed:
            kills += 1
            LoRaWanDevice.objects.update(leased_until=None, due_at=timezone.now())  # the lease has ended
        monkeypatch.undo()
    assert kills >= 3
    scene.run(lambda: state(delivery) == "delivered")
    numbers = [number_of(item.data) for item in scene.far_end.enqueued if number_of(item.data) is not None]
    assert len(numbers) == len(set(numbers))
    assert scene.radio.block() == BUNDLE


def test_a_chirpstack_that_is_down_loses_nothing(scene: Scene) -> None:
    delivery = scene.offer(BUNDLE)
    scene.run(lambda: len(scene.radio.seen_numbers) > 5)
    scene.far_end.refuse["Enqueue"] = grpc.StatusCode.UNAVAILABLE
    for _ in range(4):
        scene.radio.uplink()
        feed_lorawan()
    scene.far_end.refuse.clear()
    LoRaWanDevice.objects.update(due_at=timezone.now())
    scene.run(lambda: state(delivery) == "delivered")
    assert scene.radio.block() == BUNDLE


def test_a_node_that_sleeps_is_never_failed(scene: Scene) -> None:
    delivery = scene.offer(BUNDLE)
    for _ in range(60):
        LoRaWanDevice.objects.update(due_at=timezone.now())
        feed_lorawan()
    assert state(delivery) == "offered"
    assert len(scene.far_end.enqueued) == visit.COPIES


def test_a_node_that_never_answers_the_set_up_fails_with_a_cause(scene: Scene) -> None:
    delivery = scene.offer(BUNDLE)
    scene.radio.hear = lambda port, data: None  # type: ignore[method-assign]
    scene.run(lambda: state(delivery) == "failed")
    assert scene.last("failed").cause == "no-session"


def test_a_node_that_refuses_the_session_fails_with_a_cause(scene: Scene) -> None:
    delivery = scene.offer(BUNDLE)
    scene.radio.hear = lambda port, data: scene.radio.outbox.append((201, b"\x02\x02"))  # type: ignore[method-assign]
    scene.run(lambda: state(delivery) == "failed")
    assert scene.last("failed").cause == "session-refused"


def test_nothing_missing_is_no_success_before_the_node_says_so(scene: Scene) -> None:
    scene.radio.takes = False
    delivery = scene.offer(BUNDLE)
    scene.run(lambda: scene.radio.setup and scene.radio.block() is not None)
    for _ in range(6):
        scene.radio.uplink()
        feed_lorawan()
    assert state(delivery) == "transferring"
    scene.radio.state, scene.radio.sequence = 7, scene.radio.sequence
    scene.radio.outbox.append((26, scene.radio.report()))
    scene.run(lambda: state(delivery) == "delivered", uplinks=5)


def test_a_second_bundle_waits_for_the_first(scene: Scene) -> None:
    first, second = scene.offer(BUNDLE), scene.offer(BUNDLE[:500], reference=2)
    scene.run(lambda: len(scene.radio.seen_numbers) > 5)
    assert (state(first), state(second)) == ("transferring", "waiting")
    scene.run(lambda: state(first) == "delivered")
    scene.radio.state = 0
    scene.run(lambda: state(second) == "delivered")
    assert scene.radio.block() == BUNDLE[:500]


def test_bytes_and_frames_that_left_are_counted(scene: Scene) -> None:
    delivery = scene.offer(BUNDLE)
    scene.run(lambda: state(delivery) == "delivered")
    delivery.refresh_from_db()
    own = [item for item in scene.far_end.enqueued if item.f_port == 201]
    assert delivery.bytes_sent == sum(len(item.data) for item in own)
    assert FragmentSession.objects.get(delivery=delivery).frames_sent == len(own)


def test_events_that_were_worked_off_are_dropped_a_day_later(scene: Scene) -> None:
    from devices.links.lorawan import intake

    assert NetworkEvent.objects.exists()
    assert intake.prune(now=timezone.now()) == 0
    assert intake.prune(now=timezone.now() + 2 * intake.KEEP) > 0
    assert not NetworkEvent.objects.exists()


def test_two_workers_side_by_side_send_nothing_twice(scene: Scene) -> None:
    delivery = scene.offer(BUNDLE)
    scene.run(lambda: len(scene.radio.seen_numbers) > 2)

    def work() -> None:
        try:
            feed_lorawan()
        finally:
            connection.close()

    for _ in range(12):
        scene.radio.uplink()
        workers = [threading.Thread(target=work) for _ in range(3)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    scene.run(lambda: state(delivery) == "delivered")
    numbers = [number_of(item.data) for item in scene.far_end.enqueued if number_of(item.data) is not None]
    assert len(numbers) == len(set(numbers))
    assert FragmentSession.objects.get(delivery=delivery).restarts == 0
    assert scene.events().count("delivered") == 1
