"""A worker that dies before or after any statement of its work leaves all of it undone, or all of it done."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from devices.models import Delivery, LinkEvent
from tests.integration.updates.campaigns.engine_machine import PATIENCE_S, Worker, die
from tests.integration.updates.campaigns.scene import Scene
from updates.campaigns import engine, ingest
from updates.campaigns.reconcile import reconcile

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def worker() -> Iterator[Worker]:
    worker = Worker()
    yield worker
    worker.close()


def killed_later_each_time(worker: Worker, job: Callable[[], object]) -> Iterator[int]:
    """The moment at which it was killed, once for each until somebody stops asking."""
    for moment in itertools.count():
        worker.start(job, moment=moment, strike=die).result(PATIENCE_S)
        yield moment


def test_a_batch_is_drained_as_a_whole_or_drained_again(worker: Worker) -> None:
    scene = Scene(nodes=3)
    campaign = scene.tick(scene.campaign())
    for update in scene.open_updates(campaign):
        scene.confirm(update)
    for moment in killed_later_each_time(worker, partial(ingest.drain, now=scene.now)):
        drained = not LinkEvent.objects.filter(drained_at=None).exists()
        assert scene.states(campaign) == ({"confirmed": 3} if drained else {"offered": 3}), moment
        assert reconcile() == [], moment
        if drained:
            break
    assert moment > 20


def test_a_tick_offers_and_hands_over_as_a_whole_or_again(worker: Worker) -> None:
    scene = Scene(nodes=3)
    campaign = scene.campaign()
    for moment in killed_later_each_time(worker, partial(engine.tick, campaign_id=campaign.pk, now=scene.now)):
        handed_over = Delivery.objects.count()
        assert scene.states(campaign) == ({"offered": 3} if handed_over else {"planned": 3}), moment
        assert handed_over in (0, 3)
        assert reconcile() == [], moment
        if handed_over:
            break
    assert moment > 20
