"""A campaign in a database of its own, for tests that back one up: `begin`, `work` until standard input ends, `finish`."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterable

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "fleet.settings")
django.setup()

from django.core.management import call_command  # noqa: E402
from django.utils import timezone  # noqa: E402

from devices.models import LinkEvent  # noqa: E402
from tests.integration.updates.campaigns.scene import Scene  # noqa: E402
from updates.campaigns import engine, ingest  # noqa: E402
from updates.campaigns.bundles import revert_command_for  # noqa: E402
from updates.campaigns.reconcile import reconcile  # noqa: E402
from updates.models import Campaign, NodeUpdate  # noqa: E402

NODES = 60


def begin() -> None:
    call_command("migrate", verbosity=0)
    scene = Scene(nodes=NODES, now=timezone.now())
    campaign = scene.tick(scene.campaign())
    confirm(campaign.node_updates.filter(state="offered").order_by("pk")[:10])
    print(revert_command_for(campaign).hex())


def confirm(updates: Iterable[NodeUpdate]) -> None:
    """What a gateway writes when each of these nodes has taken the image."""
    for update in updates:
        now = timezone.now()
        assert update.image is not None
        common = {"at": now, "link": "nbiot", "node_id": update.node_id}
        LinkEvent.objects.create(**common, kind="delivered", reference=update.pk)
        LinkEvent.objects.create(**common, kind="holds", digest=update.image.digest)


def work() -> None:
    """Goes on, one node after the other, and says so; the last ten stay for `finish`."""
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    campaign = Campaign.objects.get()
    waiting = list(campaign.node_updates.filter(state="offered").order_by("pk"))[:-10]
    print("working", flush=True)
    for update in waiting:
        confirm([update])
        ingest.drain(now=timezone.now())
        engine.tick(campaign_id=campaign.pk, now=timezone.now())
        if ended.wait(0.05):
            return
    ended.wait(60)


def finish() -> None:
    campaign = Campaign.objects.get()
    confirmed = campaign.node_updates.filter(state="confirmed").count()
    confirm(campaign.node_updates.exclude(state="confirmed").order_by("pk"))
    while ingest.drain(now=timezone.now()):
        pass
    for _ in range(3):
        engine.tick(campaign_id=campaign.pk, now=timezone.now())
    campaign.refresh_from_db()
    states = sorted(set(campaign.node_updates.values_list("state", flat=True)))
    print(confirmed, campaign.state, *states, reconcile(), revert_command_for(campaign).hex())


if __name__ == "__main__":
    {"begin": begin, "work": work, "finish": finish}[sys.argv[1]]()
