from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from django.utils import timezone
from pytest_django.live_server_helper import LiveServer

from devices.links import link_for
from devices.links.base import Recipient
from devices.links.lorawan.chirpstack import TOKEN_PURPOSE
from devices.links.lorawan.events import hash_of
from devices.links.lorawan.models import NetworkServer
from devices.models import Delivery, LinkEvent, LinkKind, Node
from devices.tasks import feed_lorawan
from fleet.sealing import seal
from tests import factories
from tests.integration.lorawan.far_end import TOKEN, ClassA, FarEnd

SECRET = "what events bring"


@pytest.fixture
def far_end() -> Iterator[FarEnd]:
    with FarEnd() as running:
        yield running


@pytest.fixture
def server(transactional_db: None, far_end: FarEnd, live_server: LiveServer) -> NetworkServer:
    made = NetworkServer.objects.create(
        name="here",
        target=far_end.target,
        token_sealed=seal(TOKEN.encode(), purpose=TOKEN_PURPOSE),
        event_base_url=live_server.url,
        event_secret_hashes=[hash_of(SECRET)],
    )
    far_end.post_to, far_end.authorization = made.events_url, f"Bearer {SECRET}"
    return made


@dataclass
class Scene:
    """One node, its row, and the engine's side of its link."""

    far_end: FarEnd
    server: NetworkServer
    node: Node
    radio: ClassA

    def offer(self, bundle: bytes, *, base: bytes | None = None, reference: int = 1) -> Delivery:
        key = "*" if base is None else base.hex()
        link_for(LinkKind.LORAWAN).offer(
            bundles={key: bundle}, nodes=[Recipient(self.node.pk, reference)], now=timezone.now()
        )
        return Delivery.objects.get(reference=reference)

    def command(self, command: bytes, *, reference: int = 1) -> Delivery:
        recipients = [Recipient(self.node.pk, reference)]
        link_for(LinkKind.LORAWAN).command(command=command, nodes=recipients, now=timezone.now())
        return Delivery.objects.get(reference=reference)

    def run(self, done: Callable[[], object], *, uplinks: int = 400) -> int:
        """Uplinks, each followed by what a worker does, until `done`; how many it took."""
        for count in range(uplinks):
            if done():
                return count
            self.radio.uplink()
            feed_lorawan()
        raise AssertionError(f"not done after {uplinks} uplinks: {self.events()}")

    def events(self) -> list[str]:
        return [str(event.kind) for event in LinkEvent.objects.filter(node=self.node).order_by("id")]

    def last(self, kind: str) -> LinkEvent:
        found = LinkEvent.objects.filter(node=self.node, kind=kind).order_by("id").last()
        assert found is not None, kind
        return found


@pytest.fixture
def scene(server: NetworkServer, far_end: FarEnd) -> Scene:
    """A node that has told what it holds."""
    radio = ClassA(far_end, digest=bytes(range(32)))
    node = factories.make_node(link=LinkKind.LORAWAN, endpoint=radio.dev_eui, firmware_build=factories.make_firmware())
    made = Scene(far_end, server, node, radio)
    radio.tell()
    for _ in range(2):
        radio.uplink()
    feed_lorawan()
    return made
