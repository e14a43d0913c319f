"""Halt: what leaves after the click, on a ChirpStack with a real worker that feeds it, and on the LwM2M side."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest
from django.utils import timezone

from devices.links.lorawan.discovery import discover
from devices.links.lorawan.servers import add_server, set_up
from devices.models import OPEN_DELIVERY, Delivery, LinkKind, Node
from devices.simulator.chirpstack.gateway import GatewaySpec
from devices.simulator.lorawan.background import BackgroundChirpStack
from devices.simulator.lorawan.spec import LorawanNodeSpec, LorawanSpec
from fleet.accounts.models import Role
from tests.browser.field import wait, worker
from tests.browser.visitor import Visitor
from tests.integration.updates.campaigns.scene import Scene, make_image
from updates.signer import installation_signer

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

GATEWAY = "0016c001f153a14c"
LORAWAN_NODES, NBIOT_NODES = 6, 4


def test_no_frame_leaves_two_seconds_after_the_click(visitor: Visitor, tmp_path: Path) -> None:
    scene = Scene(nodes=NBIOT_NODES)
    # Nothing in common with what nodes hold: a patch would be too small to be halted in its course.
    scene.new = make_image(scene.new.version.family, "1.2", random.Random(1).randbytes(8000))
    scene.now = timezone.now()
    spec = LorawanSpec(
        public_keys=[installation_signer().public_key],
        images={scene.old.digest: bytes(scene.old.blob.data)},
        nodes=[
            LorawanNodeSpec(
                endpoint=f"pump-{number}",
                class_hash=scene.firmware.class_hash,
                slot_bytes=65_536,
                active=scene.old.digest,
                wake_interval_s=60.0,
                data_rate=1,
                tags={"profile": scene.profile.name, "firmware_build": scene.firmware.name},
            )
            for number in range(LORAWAN_NODES)
        ],
        gateways=[GatewaySpec(GATEWAY, duty_cycle=False)],
    )
    page = visitor.page(Role.OPERATOR)
    with BackgroundChirpStack(tmp_path, spec, time_scale=120.0) as stand_in:
        server = add_server(
            actor="ana", token=stand_in.token, name="field", target=stand_in.address, event_base_url=visitor.address
        )
        set_up(server_id=server.pk, actor="ana")
        discover(server_id=server.pk, actor="ana")
        Node.objects.filter(link=LinkKind.LORAWAN).update(active_digest=scene.old.digest)
        assert Node.objects.filter(link=LinkKind.LORAWAN).count() == LORAWAN_NODES
        campaign = scene.campaign()

        def sent() -> int:
            return int(stand_in.status()["totals"]["frames_down"])

        def heard() -> int:
            return int(stand_in.status()["totals"]["frames_up"])

        with worker(campaign.pk):
            page.goto(f"/campaigns/{campaign.pk}/")
            wait(page, lambda: sent() > 40 and Delivery.objects.filter(node__link=LinkKind.NBIOT).count() > 0)

            clicked = time.monotonic()
            page.click("#halt")
            page.wait_for_selector("#verdict:has-text('paused')")
            wait(page, lambda: time.monotonic() > clicked + 2.0)
            after, offered, uplinks = sent(), Delivery.objects.count(), heard()
            wait(page, lambda: heard() > uplinks + 5 * LORAWAN_NODES)

            assert sent() == after
            assert Delivery.objects.count() == offered
            assert not Delivery.objects.filter(state__in=OPEN_DELIVERY).exists()
