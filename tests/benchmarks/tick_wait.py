"""How long a tick waits while reports come in at 2,000 events a second: N ticks, one every half second.

A thread writes events as gateways do, two drain as two workers do, and the ticks are asked for as beat asks.
"""

from __future__ import annotations

import threading
import time

RATE, CHUNK, NODES = 2000, 200, 5000
LIMITS = {"tick_wait_max_s": ("<=", 3.0), "ticks_that_looked_percent": (">=", 100.0)}


def run(n: int | None = None) -> dict[str, float]:
    from tests.benchmarks._database import fresh_database

    with fresh_database():
        return _measure(n or 40)


def _measure(ticks: int) -> dict[str, float]:
    from django.db import connection
    from django.utils import timezone

    from devices.models import LinkEvent
    from tests.integration.updates.campaigns.scene import Scene
    from updates.campaigns import engine
    from updates.campaigns.ingest import drain

    scene = Scene(nodes=NODES, now=timezone.now())
    campaign = scene.campaign()
    while scene.states(scene.tick(campaign)) != {"offered": NODES}:
        pass
    references = list(campaign.node_updates.order_by("pk").values_list("pk", "node_id"))
    stopping = threading.Event()
    written, drained = [0], [0, 0]

    def write() -> None:
        due = time.monotonic()
        while not stopping.is_set():
            first = written[0] % NODES
            LinkEvent.objects.bulk_create(
                LinkEvent(
                    at=timezone.now(),
                    link="nbiot",
                    kind="progress",
                    node_id=node,
                    reference=pk,
                    received_bytes=written[0] // NODES,
                    total_bytes=100_000,
                )
                for pk, node in references[first : first + CHUNK]
            )
            written[0] += CHUNK
            due += CHUNK / RATE
            stopping.wait(max(0.0, due - time.monotonic()))
        connection.close()

    def work(worker: int) -> None:
        while not stopping.is_set():
            done = drain(now=timezone.now())
            drained[worker] += done
            if not done:
                stopping.wait(0.01)
        connection.close()

    threads = [threading.Thread(target=write), *(threading.Thread(target=work, args=(index,)) for index in (0, 1))]
    for thread in threads:
        thread.start()
    began = time.monotonic()
    waits, looked = [], 0
    try:
        for _ in range(ticks):
            time.sleep(0.5)
            asked = time.monotonic()
            looked += engine.tick(campaign_id=campaign.pk, now=scene.now)
            waits.append(time.monotonic() - asked)
    finally:
        seconds = time.monotonic() - began
        stopping.set()
        for thread in threads:
            thread.join()
    waits.sort()
    return {
        "events_written_per_s": written[0] / seconds,
        "events_drained_per_s": sum(drained) / seconds,
        "ticks_that_looked_percent": 100 * looked / ticks,
        "tick_wait_median_s": waits[len(waits) // 2],
        "tick_wait_max_s": waits[-1],
    }
