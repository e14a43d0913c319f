"""Event tables take every row, have their months made ahead, and drop whole months that are too old."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from django.db import connection

from devices.models import LinkEvent
from fleet.audit.models import AuditEntry, record
from fleet.partitions import drop_expired_partitions, make_partitions_ahead
from tests.integration.domain import factories as make
from tests.integration.domain.race import race
from updates.models import UpdateEvent

pytestmark = pytest.mark.django_db

NOVEMBER = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
DECEMBER = datetime(2026, 12, 5, tzinfo=UTC)


def link_event(at: datetime) -> LinkEvent:
    return LinkEvent.objects.create(at=at, link="nbiot", kind="holds", node=make.node(), digest=64 * "a")


def partition_of(event: LinkEvent) -> str:
    with connection.cursor() as cursor:
        cursor.execute("SELECT tableoid::regclass::text FROM devices_linkevent WHERE id = %s", [event.pk])
        return str(cursor.fetchone()[0])


def test_a_month_without_partition_loses_no_row() -> None:
    event = link_event(NOVEMBER)
    assert partition_of(event) == "devices_linkevent_default"
    assert LinkEvent.objects.get(pk=event.pk).at == NOVEMBER


def test_this_month_and_those_ahead_get_partitions_over_the_end_of_a_year() -> None:
    made = make_partitions_ahead(now=NOVEMBER, months=2)
    months = ["202611", "202612", "202701"]
    assert made == [f"{table}_{month}" for table in ("devices_linkevent", "updates_updateevent") for month in months]
    assert partition_of(link_event(NOVEMBER)) == "devices_linkevent_202611"


def test_the_last_instant_of_a_month_and_the_first_of_the_next_part() -> None:
    make_partitions_ahead(now=NOVEMBER, months=1)
    assert partition_of(link_event(datetime(2026, 11, 30, 23, 59, 59, 999999, tzinfo=UTC))).endswith("_202611")
    assert partition_of(link_event(datetime(2026, 12, 1, tzinfo=UTC))).endswith("_202612")


def test_partitions_are_made_once() -> None:
    make_partitions_ahead(now=NOVEMBER, months=1)
    assert make_partitions_ahead(now=NOVEMBER, months=1) == []


def test_rows_that_came_before_their_partition_move_into_it() -> None:
    early, other_month = link_event(NOVEMBER), link_event(datetime(2027, 6, 1, tzinfo=UTC))
    make_partitions_ahead(now=NOVEMBER, months=0)
    assert partition_of(early) == "devices_linkevent_202611"
    assert partition_of(other_month) == "devices_linkevent_default"
    early.refresh_from_db()
    assert (early.at, early.digest) == (NOVEMBER, 64 * "a")


def test_a_new_partition_goes_on_counting_ids_and_has_the_indexes() -> None:
    early = link_event(NOVEMBER)
    make_partitions_ahead(now=NOVEMBER, months=0)
    assert link_event(NOVEMBER).pk > early.pk
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_indexes WHERE tablename = 'devices_linkevent_202611'")
        assert cursor.fetchone() == (3,)


@pytest.mark.django_db(transaction=True)
def test_two_that_make_partitions_at_once_do_not_collide() -> None:
    try:
        outcome = race(
            lambda: make_partitions_ahead(now=NOVEMBER, months=0), lambda: make_partitions_ahead(now=NOVEMBER, months=0)
        )
        assert outcome.waited
        assert (outcome.error, outcome.result) == (None, [])
    finally:
        drop_expired_partitions(now=datetime(2030, 1, 1, tzinfo=UTC), keep_days=0)


@pytest.mark.parametrize(
    ("today", "kept"),
    [(datetime(2027, 1, 9, tzinfo=UTC), True), (datetime(2027, 1, 10, tzinfo=UTC), False)],
    ids=["the day before", "the day when its last row is too old"],
)
def test_a_month_is_dropped_when_all_of_it_is_too_old(today: datetime, kept: bool) -> None:
    make_partitions_ahead(now=NOVEMBER, months=2)
    november, december = link_event(NOVEMBER), link_event(DECEMBER)
    dropped = drop_expired_partitions(now=today, keep_days=40)
    assert dropped == ([] if kept else ["devices_linkevent_202611", "updates_updateevent_202611"])
    assert LinkEvent.objects.filter(pk=november.pk).exists() is kept
    assert LinkEvent.objects.filter(pk=december.pk).exists()


def test_the_default_partition_is_never_dropped_but_loses_what_is_too_old() -> None:
    of_a_wrong_clock, young = link_event(datetime(2001, 1, 1, tzinfo=UTC)), link_event(NOVEMBER)
    drop_expired_partitions(now=NOVEMBER, keep_days=1)
    assert not LinkEvent.objects.filter(pk=of_a_wrong_clock.pk).exists()
    assert partition_of(young) == "devices_linkevent_default"


def test_what_people_did_outlives_every_retention() -> None:
    entry = record(actor="ana", action="campaign.approve", subject=make.node())
    drop_expired_partitions(now=datetime(2099, 1, 1, tzinfo=UTC), keep_days=0)
    assert AuditEntry.objects.get() == entry


def test_events_of_updates_are_partitioned_too() -> None:
    make_partitions_ahead(now=NOVEMBER, months=0)
    row = make.node_update()
    event = UpdateEvent.objects.create(
        at=NOVEMBER, campaign=row.campaign, node=row.node, node_update_id=row.pk, to_state="offered"
    )
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM updates_updateevent_202611 WHERE id = %s", [event.pk])
        assert cursor.fetchone() == (1,)
