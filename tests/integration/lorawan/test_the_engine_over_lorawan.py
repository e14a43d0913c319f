"""A campaign that the engine runs, over real sockets to a class A node, ends by what the node proves to hold."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.utils import timezone

from devices.links.lorawan.models import NetworkServer
from devices.models import Delivery, Node
from devices.tasks import feed_lorawan
from tests.integration.lorawan.far_end import ClassA, FarEnd
from tests.integration.updates.campaigns.conftest import books_are_right  # noqa: F401
from tests.integration.updates.campaigns.scene import Scene
from updates.campaigns import actions, engine, ingest
from updates.models import Campaign, NodeUpdate


class Field:
    """One node over LoRaWAN in the engine's small fleet."""

    def __init__(self, far_end: FarEnd) -> None:
        self.scene = Scene(nodes=1)
        self.radio = ClassA(far_end, digest=bytes.fromhex(self.scene.old.digest))
        Node.objects.update(link="lorawan", endpoint=self.radio.dev_eui)
        self.scene.now = timezone.now()
        self.campaign = self.scene.campaign()
        self.radio.sequence = 0
        self.radio.tell()

    def run(self, done: Callable[[], object], uplinks: int = 200) -> None:
        for _ in range(uplinks):
            if done():
                return
            self.work()
            self.radio.uplink()
        raise AssertionError(f"not done: {self.update().state} {self.update().cause}")

    def work(self) -> None:
        engine.tick(campaign_id=self.campaign.pk, now=timezone.now())
        feed_lorawan()
        while ingest.drain(now=timezone.now()):
            pass

    def update(self) -> NodeUpdate:
        return NodeUpdate.objects.get()

    def say(self, state: int, *, digest: str, proof: bool = True) -> None:
        """As the node that took the bundle: its sequence is the campaign's by now."""
        self.radio.state, self.radio.digest = state, bytes.fromhex(digest)
        self.radio.sequence = Campaign.objects.get().sequence
        if proof:
            self.radio.tell()
        else:
            self.radio.outbox.append((26, self.radio.report()))


@pytest.fixture
def field(server: NetworkServer, far_end: FarEnd) -> Field:
    return Field(far_end)


def take(field: Field) -> None:
    """Until the node has the bundle and says that it has staged it."""
    field.radio.takes = False
    field.run(lambda: field.radio.setup and field.radio.block() is not None)
    field.say(2, digest=field.scene.old.digest, proof=False)
    field.run(lambda: field.update().state == "staged")


def test_an_update_is_confirmed_when_the_node_proves_what_it_runs(field: Field) -> None:
    take(field)
    patch = Delivery.objects.get().bundle
    assert patch is not None and patch.base_digest == field.scene.old.digest
    field.say(3, digest=field.scene.old.digest, proof=False)
    field.run(lambda: field.update().state == "trial")
    field.say(4, digest=field.scene.new.digest)
    field.run(lambda: field.update().state == "confirmed")
    assert Node.objects.get().active_digest == field.scene.new.digest


def test_a_lie_of_success_is_found_out(field: Field) -> None:
    take(field)
    lie = field.scene.new.digest[:8] + field.scene.old.digest[8:]
    field.say(4, digest=lie)
    field.run(lambda: field.update().state == "failed")
    assert field.update().cause == "claims-success"


def test_a_claim_alone_decides_nothing_until_the_digest_was_asked_for(field: Field) -> None:
    take(field)
    field.say(4, digest=field.scene.new.digest, proof=False)
    field.radio.uplink()
    field.work()
    assert field.update().state == "staged"
    field.run(lambda: field.update().state == "confirmed")
    assert b"\x02" in field.radio.got


def test_a_rejection_ends_the_update_with_its_cause(field: Field) -> None:
    field.radio.takes = False
    field.run(lambda: field.radio.setup and field.radio.block() is not None)
    field.radio.state, field.radio.cause = 7, 4
    field.radio.tell()
    field.run(lambda: field.update().state == "rejected")
    assert field.update().cause == "bad-signature"


def test_halting_lets_no_further_frame_leave(field: Field) -> None:
    field.radio.rate = 0
    field.run(lambda: len(field.radio.seen_numbers) > 2)
    actions.pause(campaign_id=field.campaign.pk, actor="olga", now=timezone.now())
    feed_lorawan()
    assert field.radio.far_end.queues[field.radio.dev_eui] == []
    before = len(field.radio.got)
    for _ in range(3):
        field.radio.uplink()
        field.work()
    assert len(field.radio.got) == before
    actions.resume(campaign_id=field.campaign.pk, actor="olga", now=timezone.now())
    take(field)
