"""Patches that nobody needs: kept for a while, then gone with their bytes; and never from under someone who needs them."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from devices.models import Node
from fleet.audit.models import AuditEntry
from fleet.blobs.models import Blob, forget_unused, store
from tests import factories
from updates import tasks
from updates.models import Campaign, ModelVersion, Patch
from updates.patch_collection import _delete, collect
from updates.services import ensure_patches

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
LATER = NOW + timedelta(days=31)


@pytest.fixture
def pair(db: None) -> list[ModelVersion]:
    first = factories.make_version()
    return [first, factories.make_version(family=first.family)]


def image_of(version: ModelVersion) -> int:
    return version.images.get().pk


def test_an_unneeded_patch_is_kept_for_the_retention_then_deleted_with_its_bytes_and_audited(
    pair: list[ModelVersion],
) -> None:
    patch = factories.make_patch(*pair)
    assert collect(now=NOW) == 0
    assert collect(now=NOW + timedelta(days=29)) == 0
    assert collect(now=LATER) == 1
    assert not Patch.objects.exists()
    assert not Blob.objects.filter(pk=patch.blob_id).exists()
    entry = AuditEntry.objects.get(action="patch.collected")
    assert entry.before is not None
    assert (entry.object_id, entry.before["decoder"], entry.after) == (str(patch.pk), "bsdiff", None)


@pytest.mark.parametrize("digits", [8, 64])
def test_a_patch_whose_base_a_node_runs_is_kept(pair: list[ModelVersion], digits: int) -> None:
    factories.make_patch(*pair)
    factories.make_node(active_digest=pair[0].images.get().digest[:digits])
    assert (collect(now=NOW), collect(now=LATER)) == (0, 0)


def test_a_patch_is_collected_where_nodes_run_its_target_only(pair: list[ModelVersion]) -> None:
    factories.make_patch(*pair)
    factories.make_node(active_digest=pair[1].images.get().digest)
    assert (collect(now=NOW), collect(now=LATER)) == (0, 1)


@pytest.mark.parametrize("state", ["scheduled", "running", "paused", "halted"])
def test_a_patch_that_a_live_campaign_needs_is_kept(pair: list[ModelVersion], state: str) -> None:
    factories.make_patch(*pair)
    factories.make_campaign(version=pair[1], state=state)
    assert (collect(now=NOW), collect(now=LATER)) == (0, 0)


def test_a_patch_that_a_live_rollback_asked_for_is_kept_until_it_has_ended(pair: list[ModelVersion]) -> None:
    patch = factories.make_patch(pair[1], pair[0])
    forward = factories.make_campaign(state="aborted")
    rollback = factories.make_campaign(kind="rollback", reverts=forward)
    Campaign.objects.filter(pk=rollback.pk).update(version=None, plan={"patches": [patch.pk]})
    assert (collect(now=NOW), collect(now=LATER)) == (0, 0)
    Campaign.objects.filter(pk=rollback.pk).update(state="finished")
    assert (collect(now=LATER), collect(now=LATER + timedelta(days=31))) == (0, 1)


def test_a_node_that_comes_back_with_the_base_saves_the_patch_and_its_time_begins_anew(
    pair: list[ModelVersion],
) -> None:
    factories.make_patch(*pair)
    collect(now=NOW)
    node = factories.make_node(active_digest=pair[0].images.get().digest)
    assert collect(now=LATER) == 0
    Node.objects.filter(pk=node.pk).delete()
    assert collect(now=LATER + timedelta(days=1)) == 0
    assert Patch.objects.exists()


def test_a_plan_that_asks_for_a_marked_patch_takes_its_mark_away(pair: list[ModelVersion]) -> None:
    patch = factories.make_patch(*pair)
    collect(now=NOW)
    assert ensure_patches(wanted=[(image_of(pair[0]), image_of(pair[1]), "bsdiff")]) == [patch.pk]
    assert collect(now=LATER) == 0


def test_a_collected_patch_is_asked_for_anew_when_it_is_needed_again(pair: list[ModelVersion]) -> None:
    factories.make_patch(*pair)
    collect(now=NOW)
    collect(now=LATER)
    [key] = ensure_patches(wanted=[(image_of(pair[0]), image_of(pair[1]), "bsdiff")])
    assert Patch.objects.get(pk=key).state == "waiting"


def test_bytes_that_something_else_refers_to_stay(pair: list[ModelVersion]) -> None:
    image = pair[1].images.get()
    factories.make_patch(*pair, codec=0, blob=image.blob)
    collect(now=NOW)
    assert collect(now=LATER) == 1
    assert Blob.objects.filter(pk=image.blob_id).exists()


def test_collecting_a_hundred_takes_as_many_queries_as_collecting_one(pair: list[ModelVersion]) -> None:
    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            collect(now=LATER)
        return len(captured)

    factories.make_patch(*pair)
    Patch.objects.update(unneeded_since=NOW)
    one = queries()
    for _ in range(20):
        factories.make_patch(pair[0], factories.make_version(family=pair[0].family))
    Patch.objects.update(unneeded_since=NOW)
    assert queries() == one
    assert not Patch.objects.exists()


def in_another_connection(work: Callable[[], object]) -> object:
    def run() -> object:
        try:
            return work()
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(run).result(timeout=20)


@pytest.mark.django_db(transaction=True)
def test_a_patch_that_another_transaction_has_just_asked_for_is_not_collected() -> None:
    first = factories.make_version()
    pair = [first, factories.make_version(family=first.family)]
    patch = factories.make_patch(*pair)
    collect(now=NOW)
    with transaction.atomic():
        ensure_patches(wanted=[(image_of(pair[0]), image_of(pair[1]), "bsdiff")])
        # The plan is not committed yet, so nobody else can see the campaign that needs the patch.
        assert in_another_connection(lambda: Patch.objects.filter(unneeded_since__isnull=False).count()) == 1
        assert in_another_connection(lambda: _delete(LATER)) == 0
    assert Patch.objects.get() == patch


@pytest.mark.django_db(transaction=True)
def test_bytes_that_another_transaction_is_storing_are_not_deleted_from_under_it() -> None:
    digest = store(b"the same bytes").pk
    with transaction.atomic():
        store(b"the same bytes")
        assert in_another_connection(lambda: forget_unused([digest])) == 0
    assert Blob.objects.filter(pk=digest).exists()
    assert forget_unused([digest]) == len(b"the same bytes")


def test_the_task_collects(pair: list[ModelVersion]) -> None:
    factories.make_patch(*pair)
    Patch.objects.update(unneeded_since=NOW - timedelta(days=365))
    tasks.collect_patches()
    assert not Patch.objects.exists()
