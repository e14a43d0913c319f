"""Is the fleet manager itself well? Each check has a number, its limit, and what to do.

How old a queue is, PostgreSQL says and not the broker: messages are wake-ups that expire after ten seconds, so a long
queue of them may mean nothing, and an empty one may hide a day of undone work. The age of a queue is that of the oldest
work that is due and not taken.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog
from django.db import DatabaseError, connection, transaction
from django.db.models import F, Max, Min, Q
from django.db.models.functions import Coalesce

from devices.models import LinkEvent, LinkKind, LoRaWanDevice, NetworkEvent, Node
from fleet.operations.heart import DEAD_AFTER_S
from fleet.operations.models import Heartbeat, LastRun, ProcessKind
from updates.campaigns.engine import due_campaigns
from updates.campaigns.runs import TICK, tick_of
from updates.models import ModelVersion, Patch
from updates.states import PatchState, VersionState

log = structlog.get_logger(__name__)
OK, FAILED, UNNEEDED = "ok", "failed", "unneeded"
# Seconds. A build takes minutes, and those behind it wait.
QUEUE_LIMITS_S = {"campaigns": 30.0, "links": 60.0, "pipeline": 1800.0}
# Links whose radio is reached by a process of its own.
GATEWAYS = (LinkKind.NBIOT,)
BROKER_LIMIT_S = 2.0
STATEMENT_LIMIT_MS = 3000


@dataclass(frozen=True)
class Check:
    """`value` and `limit` in seconds; a value of None was never measured."""

    name: str
    title: str
    state: str
    value: float | None
    limit: float | None
    advice: str = ""

    def as_json(self) -> dict[str, object]:
        value = None if self.value is None else round(self.value, 3)
        return {
            "name": self.name,
            "state": self.state,
            "value": value,
            "limit": self.limit,
            "unit": "s",
            "advice": self.advice,
        }


def ready(*, now: datetime, only: Sequence[str] = ()) -> list[Check]:
    """All checks, or those named. Raises KeyError for a name that there is not."""
    return [CHECKS[name](now) for name in (only or CHECKS)]


def _judged(name: str, title: str, value: float | None, limit: float, advice: str) -> Check:
    well = value is not None and value <= limit
    return Check(name, title, OK if well else FAILED, value, limit, "" if well else advice)


def _asking(name: str, title: str) -> Callable[[Callable[[datetime], Check]], Callable[[datetime], Check]]:
    """A check that reads PostgreSQL: one that is away, or busy beyond a few seconds, fails it and raises nothing."""

    def decorate(check: Callable[[datetime], Check]) -> Callable[[datetime], Check]:
        def asked(now: datetime) -> Check:
            try:
                with transaction.atomic(), connection.cursor() as cursor:
                    cursor.execute("SELECT set_config('statement_timeout', %s, true)", [str(STATEMENT_LIMIT_MS)])
                    return check(now)
            except DatabaseError as error:
                log.warning("check.failed", check=name, error=type(error).__name__)
                advice = "PostgreSQL does not answer: look at its log, and at DATABASE_URL."
                return Check(name, title, FAILED, None, None, advice)

        return asked

    return decorate


@_asking("database", "Database")
def _database(now: datetime) -> Check:
    with connection.cursor() as cursor:
        cursor.execute("SELECT extract(epoch FROM clock_timestamp() - statement_timestamp())::float8")
        (took,) = cursor.fetchone()
    return _judged("database", "Database", took, STATEMENT_LIMIT_MS / 1000, "")


def _broker(now: datetime) -> Check:
    import time

    from fleet.celery import app

    advice = "Redis does not answer: look at its log, and at REDIS_URL. Work goes on once it is back; nothing is lost."
    began = time.monotonic()
    try:
        with app.connection_for_read(connect_timeout=BROKER_LIMIT_S) as broker:
            broker.ensure_connection(max_retries=0, timeout=BROKER_LIMIT_S)
            broker.default_channel.client.ping()
    except Exception as error:
        # kombu hands on what its transport raises, which differs by transport.
        log.warning("check.failed", check="broker", error=type(error).__name__)
        return Check("broker", "Broker", FAILED, None, BROKER_LIMIT_S, advice)
    return _judged("broker", "Broker", time.monotonic() - began, BROKER_LIMIT_S, advice)


def _newest_beat(now: datetime, **which: str) -> float | None:
    newest = Heartbeat.objects.filter(**which).aggregate(newest=Max("beat_at"))["newest"]
    return None if newest is None else _seconds(now - newest)


def _seconds(age: timedelta) -> float:
    return max(0.0, age.total_seconds())


@_asking("beat", "Beat")
def _beat(now: datetime) -> Check:
    age = _newest_beat(now, kind=ProcessKind.BEAT)
    advice = "Beat wakes the workers and is not running: start it, one only (`celery -A fleet beat`)."
    return _judged("beat", "Beat", age, DEAD_AFTER_S, advice)


def _gateway(kind: LinkKind) -> Callable[[datetime], Check]:
    name, title = f"gateway-{kind.value}", f"Gateway {kind.label}"

    @_asking(name, title)
    def check(now: datetime) -> Check:
        age = _newest_beat(now, kind=ProcessKind.GATEWAY, serves=kind.value)
        if age is None and not Node.objects.filter(link=kind).exists():
            return Check(name, title, UNNEEDED, None, DEAD_AFTER_S)
        advice = "Nodes of this link cannot be reached: start the gateway (`manage.py lwm2m`), and look at its log."
        return _judged(name, title, age, DEAD_AFTER_S, advice)

    return check


def _queue(queue: str) -> Callable[[datetime], Check]:
    name, title = f"queue-{queue}", f"Queue {queue}"

    @_asking(name, title)
    def check(now: datetime) -> Check:
        limit, age = QUEUE_LIMITS_S[queue], queue_age(queue, now=now)
        if queue not in alive_queues(now=now):
            advice = f"No worker takes from this queue: start one (`celery -A fleet worker -Q {queue}`)."
            return Check(name, title, FAILED, age, limit, advice)
        advice = "Its workers live and do not keep up: look at their log, then add a worker."
        return _judged(name, title, age, limit, advice)

    return check


def alive_queues(*, now: datetime) -> set[str]:
    """Queues from which a living worker takes."""
    oldest = now - timedelta(seconds=DEAD_AFTER_S)
    rows = Heartbeat.objects.filter(kind=ProcessKind.WORKER, beat_at__gte=oldest).values_list("serves", flat=True)
    return {queue for serves in rows for queue in serves.split(",")}


def queue_age(queue: str, *, now: datetime) -> float | None:
    """Seconds that the oldest due work of a queue has waited; 0 where nothing waits, None where it never ran."""
    return _AGES[queue](now)


def _links_age(now: datetime) -> float | None:
    """Of what links wrote, what ChirpStack posted, and the nodes whose downlink queues a worker must look at."""
    oldest = (
        LinkEvent.objects.filter(drained_at=None).order_by("id").values_list("at", flat=True).first(),
        NetworkEvent.objects.filter(processed_at=None).order_by("id").values_list("at", flat=True).first(),
        LoRaWanDevice.objects.filter(due_at__lte=now).order_by("due_at").values_list("due_at", flat=True).first(),
    )
    return max((_seconds(now - at) for at in oldest if at is not None), default=0.0)


def _campaigns_age(now: datetime) -> float | None:
    """Since the campaign that has waited longest was looked at; without one, since the last round."""
    names = [tick_of(pk) for pk in due_campaigns(now)] or [TICK]
    oldest = LastRun.objects.filter(name__in=names).aggregate(oldest=Min("at"))["oldest"]
    return None if oldest is None else _seconds(now - oldest)


def _pipeline_age(now: datetime) -> float | None:
    """A lease that ran out is work whose worker was lost; it waits since then."""
    free = Q(lease_until__isnull=True) | Q(lease_until__lt=now)
    since = Min(Coalesce(F("lease_until"), F("created_at")))
    versions = ModelVersion.objects.filter(free, state__in=[VersionState.UPLOADED, VersionState.BUILDING])
    patches = Patch.objects.filter(free, state=PatchState.WAITING)
    found = [rows.aggregate(since=since)["since"] for rows in (versions, patches)]
    return max((_seconds(now - at) for at in found if at is not None), default=0.0)


_AGES = {"campaigns": _campaigns_age, "links": _links_age, "pipeline": _pipeline_age}
CHECKS: dict[str, Callable[[datetime], Check]] = {
    "database": _database,
    "broker": _broker,
    "beat": _beat,
    **{f"queue-{queue}": _queue(queue) for queue in QUEUE_LIMITS_S},
    **{f"gateway-{kind.value}": _gateway(kind) for kind in GATEWAYS},
}


@dataclass(frozen=True)
class Process:
    kind: str
    name: str
    serves: str
    started_at: datetime
    beat_at: datetime
    alive: bool


def processes(*, now: datetime) -> list[Process]:
    """Every process that was heard of in the last hour and did not take leave."""
    return [
        Process(
            row.get_kind_display(),
            row.name,
            row.serves,
            row.started_at,
            row.beat_at,
            _seconds(now - row.beat_at) <= DEAD_AFTER_S,
        )
        for row in Heartbeat.objects.order_by("kind", "serves", "name")
    ]
