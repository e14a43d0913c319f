"""What Prometheus reads at /metrics. docs/operations.md lists each name with its unit.

Read from PostgreSQL at each scrape, so that any web process gives the same answer; only the durations of web requests are
counted in memory. docs/decisions/0009 says why.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from django.db.models import Count as CountOf
from django.db.models import F, Sum
from django.utils import timezone
from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from devices.models import OPEN_DELIVERY, Delivery, LinkEvent, LinkKind, NetworkEvent, NetworkServer
from fleet.operations.models import Count, LastRun
from fleet.operations.requests import register_requests
from fleet.operations.services import BUILD_BUCKETS_S, COUNT_OF, SUM_OF
from fleet.status.checks import OK, QUEUE_LIMITS_S, UNNEEDED, processes, queue_age, ready
from frontend.selectors import silent
from updates.campaigns.runs import TICK
from updates.models import Campaign, Patch, Tally
from updates.selectors import last_reconcile
from updates.states import CampaignState, NodeUpdateState, PatchState


def registry() -> CollectorRegistry:
    made = CollectorRegistry()
    made.register(DatabaseCollector())
    register_requests(made)
    return made


def _gauge(name: str, what: str, label: str, values: dict[str, float]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"modelfleet_{name}", what, labels=[label])
    for value, number in values.items():
        family.add_metric([value], number)
    return family


class DatabaseCollector(Collector):
    def collect(self) -> Iterator[Metric]:
        now = timezone.now()
        checks = {check.name: float(check.state in (OK, UNNEEDED)) for check in ready(now=now)}
        yield _gauge("ready", "1 where a check of /health/ready passes.", "check", checks)
        if not checks["database"]:
            return  # nothing else can be known
        yield from _work(now)
        yield from _rollouts(now)
        yield from _links(now)
        yield from _builds()


def _work(now: datetime) -> Iterator[Metric]:
    ages = {queue: age for queue in QUEUE_LIMITS_S if (age := queue_age(queue, now=now)) is not None}
    yield _gauge("queue_age_seconds", "How long the oldest due work has waited.", "queue", ages)
    alive = GaugeMetricFamily(
        "modelfleet_processes_alive", "Processes heard of in the last 30 s.", labels=["kind", "serves"]
    )
    counts: dict[tuple[str, str], int] = {}
    for process in processes(now=now):
        key = (process.kind, process.serves)
        counts[key] = counts.get(key, 0) + process.alive
    for (kind, serves), number in counts.items():
        alive.add_metric([kind, serves], number)
    yield alive
    tick = LastRun.objects.filter(pk=TICK).first()
    if tick is not None:
        age = max(0.0, (now - tick.at).total_seconds())
        yield GaugeMetricFamily("modelfleet_tick_age_seconds", "Since the last look at all campaigns ended.", age)
        yield GaugeMetricFamily("modelfleet_tick_duration_seconds", "How long that look took.", tick.duration_s)


def _rollouts(now: datetime) -> Iterator[Metric]:
    campaigns = {state.value: 0.0 for state in CampaignState}
    campaigns |= dict(Campaign.objects.order_by().values_list("state").annotate(CountOf("id")))
    yield _gauge("campaigns", "Campaigns by state.", "state", campaigns)
    updates = {state.value: 0.0 for state in NodeUpdateState}
    updates |= dict(Tally.objects.order_by().values_list("state").annotate(Sum("count")))
    yield _gauge("node_updates", "Node updates of all campaigns by state.", "state", updates)
    proof = last_reconcile()
    if proof is not None:
        yield GaugeMetricFamily("modelfleet_reconcile_findings", "What the last reconcile found wrong.", proof.findings)
        age = max(0.0, (now - proof.at).total_seconds())
        yield GaugeMetricFamily("modelfleet_reconcile_age_seconds", "Since the last reconcile.", age)


def _links(now: datetime) -> Iterator[Metric]:
    undrained = LinkEvent.objects.filter(drained_at=None).count()
    yield GaugeMetricFamily("modelfleet_link_events_undrained", "Link events that wait to be worked off.", undrained)
    unread = NetworkEvent.objects.filter(processed_at=None).count()
    yield GaugeMetricFamily("modelfleet_network_events_unread", "Posts of ChirpStack that wait to be read.", unread)
    quiet = {
        server.name: max(0.0, (now - server.last_event_at).total_seconds())
        for server in NetworkServer.objects.all()
        if server.last_event_at is not None
    }
    yield _gauge("network_server_quiet_seconds", "Since a ChirpStack last posted an event.", "server", quiet)
    events = CounterMetricFamily("modelfleet_link_events", "Link events worked off.", labels=["link", "kind"])
    for row in Count.objects.filter(name="link_events"):
        events.add_metric([row.first, row.second], row.value)
    yield events
    waiting = {kind.value: 0.0 for kind in LinkKind}
    rows = Delivery.objects.filter(state__in=OPEN_DELIVERY).order_by().values_list("link")
    yield _gauge(
        "deliveries_open", "Deliveries under way by link.", "link", waiting | dict(rows.annotate(CountOf("id")))
    )
    yield GaugeMetricFamily(
        "modelfleet_nodes_silent", "Nodes not heard of for three of their own intervals.", silent(now=now).count()
    )


def _builds() -> Iterator[Metric]:
    family = HistogramMetricFamily(
        "modelfleet_build_duration_seconds", "Time of each stage of a build, and of a patch.", labels=["stage"]
    )
    stages: dict[str, dict[str, float]] = {}
    for row in Count.objects.filter(name="build_seconds"):
        stages.setdefault(row.first, {})[row.second] = row.value
    for stage, values in sorted(stages.items()):
        total = values.pop(SUM_OF, 0.0)
        bounds = [*(f"{bound:g}" for bound in BUILD_BUCKETS_S), COUNT_OF]
        buckets = [(bound, values.get(bound, 0.0)) for bound in bounds]
        family.add_metric([stage], buckets=buckets, sum_value=total)
    yield family
    sums = Patch.objects.filter(state=PatchState.READY).aggregate(
        patch=Sum("blob__size", default=0), full=Sum(F("target__size"), default=0)
    )
    yield _gauge("patch_bytes", "Bytes of all ready patches, and of the full images that they stand for.", "form", sums)
