from __future__ import annotations

from datetime import UTC, datetime, timedelta

from devices.simulator.chirpstack.queue import Choice, DeviceQueue, Item

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def choose(queue: DeviceQueue, room: int = 51, next_counter: int = 0) -> Choice:
    return queue.choose(room=room, next_counter=next_counter, now=NOW)


def filled(*items: Item) -> DeviceQueue:
    queue = DeviceQueue()
    for item in items:
        queue.put(item)
    return queue


def test_items_leave_in_the_order_they_came_one_a_window() -> None:
    first, second = Item(1, b"a"), Item(1, b"b")
    queue = filled(first, second)
    assert (choose(queue).item, choose(queue).more) == (first, True)
    queue.sent(first, 0)
    assert (choose(queue).item, choose(queue).more) == (second, False)


def test_an_item_that_was_not_sent_stays_first() -> None:
    first = Item(1, b"a")
    queue = filled(first, Item(1, b"b"))
    choose(queue)
    assert choose(queue).item is first


def test_items_larger_than_the_data_rate_carries_are_all_dropped_at_once() -> None:
    big = [Item(1, bytes(52)), Item(1, bytes(53))]
    fits = Item(1, bytes(51))
    choice = choose(filled(*big, fits))
    assert choice.discarded == [("too-big", big[0]), ("too-big", big[1])]
    assert choice.item is fits


def test_an_item_past_its_date_is_dropped_before_its_size_is_looked_at() -> None:
    old = Item(1, bytes(99), expires_at=NOW - timedelta(seconds=1))
    assert choose(filled(old)).discarded == [("expired", old)]
    kept = Item(1, b"", expires_at=NOW + timedelta(seconds=1))
    assert choose(filled(kept)).item is kept


def test_an_encrypted_item_with_a_counter_that_was_used_is_dropped() -> None:
    used, fresh = Item(1, b"", is_encrypted=True, f_cnt_down=4), Item(1, b"", is_encrypted=True, f_cnt_down=5)
    choice = choose(filled(used, fresh), next_counter=5)
    assert (choice.discarded, choice.item) == ([("old-counter", used)], fresh)


def test_a_confirmed_item_waits_for_its_acknowledgement_and_is_dropped_at_the_next_uplink_without_it() -> None:
    confirmed = Item(1, b"", confirmed=True)
    queue = filled(confirmed)
    queue.sent(confirmed, 7)
    assert (confirmed.is_pending, confirmed.f_cnt_down, queue.items) == (True, 7, [confirmed])
    assert choose(queue).discarded == [("unacknowledged", confirmed)]
    assert queue.items == []


def test_an_acknowledgement_takes_the_item_that_waits_for_it() -> None:
    confirmed = Item(1, b"", confirmed=True)
    queue = filled(confirmed, Item(1, b"b"))
    assert queue.acknowledged() is None
    queue.sent(confirmed, 0)
    assert queue.acknowledged() is confirmed
    assert len(queue.items) == 1


def test_flushing_on_enqueue_spares_what_was_sent_and_flushing_the_queue_spares_nothing() -> None:
    confirmed = Item(1, b"", confirmed=True)
    queue = filled(confirmed, Item(1, b"b"))
    queue.sent(confirmed, 0)
    fresh = Item(1, b"c")
    queue.put(fresh, flush=True)
    assert queue.items == [confirmed, fresh]
    queue.flush()
    assert queue.items == []


def test_an_item_flushed_while_it_was_on_its_way_does_not_come_back() -> None:
    item = Item(1, b"a")
    queue = filled(item)
    queue.flush()
    queue.sent(item, 0)
    assert queue.items == []
