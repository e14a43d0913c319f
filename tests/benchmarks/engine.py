"""One campaign over N nodes, from plan to finish: how long creating takes, and the longest single tick.

The far end is rows: what a gateway writes when each node answers. The clock of the campaign is the benchmark's own.
"""

from __future__ import annotations

import sys
import time

LIMITS = {"campaign_10k_s": ("<=", 10.0), "tick_max_s": ("<=", 1.0), "growth_of_creation": ("<=", 15.0)}
WAVES = [{"percent": 5, "soak_s": 60}, {"percent": 25, "soak_s": 60}, {"percent": 100, "soak_s": 0}]


def run(n: int | None = None) -> dict[str, float]:
    """`campaign_10k_s` is the time to plan and create for N nodes, scaled to 10,000 where N is another number."""
    from tests.benchmarks._database import fresh_database

    nodes = n or 10_000
    with fresh_database():
        small = _created_in(nodes // 10)
    with fresh_database():
        figures = _campaign(nodes)
    figures["growth_of_creation"] = figures["create_s"] / small
    figures["campaign_10k_s"] = figures["create_s"] * 10_000 / nodes
    return figures


def _created_in(nodes: int) -> float:
    from tests.integration.updates.campaigns.scene import Scene

    scene = Scene(nodes=nodes)
    began = time.perf_counter()
    scene.campaign(waves=WAVES)
    return time.perf_counter() - began


def _campaign(nodes: int) -> dict[str, float]:
    from devices.models import LinkEvent
    from tests.integration.updates.campaigns.scene import Scene
    from updates.models import NodeUpdate

    scene = Scene(nodes=nodes)
    began = time.perf_counter()
    campaign = scene.campaign(waves=WAVES)
    created = time.perf_counter() - began
    ticks: list[float] = []
    drained, drain_s = 0, 0.0
    answered = 0
    while campaign.state != "finished":
        began = time.perf_counter()
        scene.tick(campaign, later_s=5)
        ticks.append(time.perf_counter() - began)
        offered = NodeUpdate.objects.filter(campaign=campaign, state="offered").values_list("pk", "node_id")
        events = [
            LinkEvent(at=scene.now, link="nbiot", node_id=node, **fields)
            for pk, node in offered
            for fields in (
                {"kind": "delivered", "reference": pk},
                {"kind": "holds", "digest": scene.new.digest},
            )
        ]
        LinkEvent.objects.bulk_create(events, batch_size=2000)
        answered += len(events) // 2
        began = time.perf_counter()
        drained += scene.drain()
        drain_s += time.perf_counter() - began
        print(f"\r{answered} of {nodes} nodes answered, {len(ticks)} ticks", end="", file=sys.stderr)
    print(file=sys.stderr)
    if scene.states(campaign) != {"confirmed": nodes} or scene.tallies(campaign) != {"confirmed": nodes}:
        raise RuntimeError(f"the campaign ended wrong: {scene.states(campaign)}, tallies {scene.tallies(campaign)}")
    ticks.sort()
    return {
        "create_s": created,
        "tick_max_s": ticks[-1],
        "tick_median_s": ticks[len(ticks) // 2],
        "ticks": len(ticks),
        "events_drained_per_s": drained / drain_s,
    }
