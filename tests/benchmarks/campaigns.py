"""The campaign core at N nodes (100,000): planning, ticks, reports over HTTP and in batches, gates, lists, memory, growth.

Half of the nodes are NB-IoT, half LoRaWAN. The far end is rows: what a gateway writes when a node answers. HTTP goes to
the web server of the product, granian with two workers, from one client process on the same machine; memory is that of a
Celery worker that ticks and drains.
"""

from __future__ import annotations

import json
import math
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

LIMITS = {
    "plan_create_s": ("<=", 20.0),
    "tick_max_s": ("<=", 1.0),
    "reports_http_per_s": (">=", 800.0),
    "reports_batch_per_s": (">=", 10_000.0),
    "gate_ms": ("<=", 50.0),
    "list_p95_ms": ("<=", 100.0),
    "worker_rss_mb": ("<=", 300.0),
    "growth_exponent": ("<=", 1.1),
}
PLAN_1M_S = 180.0
WAVES = [{"percent": 5, "soak_s": 60}, {"percent": 25, "soak_s": 60}, {"percent": 100, "soak_s": 0}]
# Nodes of the campaign that answer, whatever its size: what a node costs then shows, not how long one can wait.
ANSWERING = 10_000
HTTP_S, CONNECTIONS, BATCH = 10.0, 8, 1000
SECRET = "benchmark"


def run(n: int | None = None) -> dict[str, float]:
    """`plan_create_s` has a limit of 20 s up to 100,000 nodes, of 3 min up to a million."""
    from tests.benchmarks import lists
    from tests.benchmarks._database import fresh_database

    nodes = n or 100_000
    if nodes > 100_000:
        LIMITS["plan_create_s"] = ("<=", PLAN_1M_S)
    sizes = [size for size in (10_000, 100_000) if size < nodes] + [nodes]
    figures: dict[str, float] = {}
    costs = []
    for size in sizes:
        with fresh_database():
            core = _Core(size)
            figures |= core.measure()
            costs.append(core.cost_s())
            if size == nodes:
                figures |= core.measure_reports() | core.measure_memory()
    figures["growth_exponent"] = _exponent(sizes, costs)
    with fresh_database():
        pages = lists.measure(nodes, repeats=10)
    return figures | {name: pages[name] for name in ("list_p95_ms", "slowest_list_p95_ms")}


def _exponent(sizes: list[int], costs: list[float]) -> float:
    """The slope of cost over size on logarithmic axes, by least squares; 0 for a single size."""
    points = [(math.log(size), math.log(cost)) for size, cost in zip(sizes, costs, strict=True)]
    x0, y0 = (sum(point[axis] for point in points) / len(points) for axis in (0, 1))
    spread = sum((x - x0) ** 2 for x, _ in points)
    return sum((x - x0) * (y - y0) for x, y in points) / spread if spread else 0.0


class _Core:
    def __init__(self, nodes: int) -> None:
        from django.db import connection

        from tests.benchmarks._database import indexes_afterwards
        from tests.integration.updates.campaigns.scene import Scene

        self.nodes, self.scene = nodes, Scene(nodes=0)
        with indexes_afterwards("devices_node"), connection.cursor() as cursor:
            cursor.execute(
                """
                INSERT INTO devices_node (endpoint, link, profile_id, firmware_build_id, site, labels, time_zone,
                    active_digest, standby_digest, sequence, created_at)
                SELECT lpad(to_hex(i), 16, '0'), CASE WHEN i %% 2 = 0 THEN 'nbiot' ELSE 'lorawan' END, %s, %s,
                    'plant-' || i %% 50, jsonb_build_object('line', (i %% 12)::text, 'serial', md5(i::text)), '', %s, '',
                    0, now()
                FROM generate_series(1, %s) i
                """,
                [self.scene.profile.pk, self.scene.firmware.pk, self.scene.old.digest, nodes],
            )
            cursor.execute("ANALYZE")

    def measure(self) -> dict[str, float]:
        scene = self.scene
        self.create_s = _timed(self._create)
        self.ticks: list[float] = []
        self.drain_s, drained, answered = 0.0, 0, 0
        while answered < min(ANSWERING, self.nodes) and self.campaign.state != "finished":
            self.ticks.append(_timed(lambda: scene.tick(self.campaign, later_s=70)))
            events, nodes = self._answers()
            answered += nodes
            drained += events
            self.drain_s += _timed(scene.drain)
        self.answered = answered
        return {
            "plan_create_s": self.create_s,
            "tick_max_s": max(self.ticks),
            "gate_ms": 1000 * min(_timed(self._judge) for _ in range(20)),
            "reports_drained_per_s": drained / self.drain_s,
        }

    def cost_s(self) -> float:
        """Of the whole campaign: planning, and for each node what one that answered took."""
        return self.create_s + (sum(self.ticks) + self.drain_s) * self.nodes / self.answered

    def _create(self) -> None:
        self.campaign = self.scene.campaign(waves=WAVES)

    def _answers(self) -> tuple[int, int]:
        """What gateways write when all nodes that have an offer take it and prove it: events, nodes."""
        from devices.models import LinkEvent
        from updates.models import NodeUpdate

        offered = list(NodeUpdate.objects.filter(state="offered").order_by("pk").values_list("pk", "node_id"))
        said: list[dict[str, Any]] = []
        for pk, _ in offered:
            said += [{"kind": "delivered", "reference": pk}, {"kind": "holds", "digest": self.scene.new.digest}]
        LinkEvent.objects.bulk_create(
            (
                LinkEvent(at=self.scene.now, link="nbiot", node_id=offered[index // 2][1], **fields)
                for index, fields in enumerate(said)
            ),
            batch_size=2000,
        )
        return len(said), len(offered)

    def _judge(self) -> None:
        """What a tick does for the gate of the open wave."""
        from updates.campaigns.gates import GatePolicy, decide
        from updates.campaigns.transitions import sum_tallies

        waves = list(self.campaign.waves.order_by("index"))
        policy = GatePolicy.read(self.campaign.gate)
        decide(tallies=sum_tallies([wave.pk for wave in waves]), policy=policy, ended=False)

    def measure_reports(self) -> dict[str, float]:
        """One by one as ChirpStack posts them; in batches at the API. Each is in the database when it is answered."""
        from devices.links.lorawan.events import hash_of
        from devices.links.lorawan.models import NetworkEvent, NetworkServer
        from devices.models import LinkEvent
        from fleet.accounts.models import Role
        from fleet.accounts.services import issue_token
        from tests import factories

        server = NetworkServer.objects.create(
            name="bench", target="127.0.0.1:1", token_sealed=b"", event_base_url="http://127.0.0.1", region="EU868",
            event_secret_hashes=[hash_of(SECRET)],
        )  # fmt: skip
        _, token = issue_token(user=factories.make_user(Role.ADMIN), name="bench", role=Role.ADMIN, actor="bench")
        known, kept = LinkEvent.objects.count(), NetworkEvent.objects.count()
        with _web() as port:
            singles = _post(port, f"/links/lorawan/{server.pk}/events?event=up", SECRET, self._uplink, 204)
            batches = _post(port, "/api/v1/reports", token, self._batch, 202)
        # What was answered is there: no more, no less.
        if NetworkEvent.objects.count() - kept != singles[0] or LinkEvent.objects.count() - known != batches[0] * BATCH:
            raise RuntimeError("the web server answered for reports that it did not keep")
        return {"reports_http_per_s": singles[0] / singles[1], "reports_batch_per_s": batches[0] * BATCH / batches[1]}

    def _uplink(self, number: int) -> bytes:
        event = {
            "deduplicationId": f"up-{number}",
            "deviceInfo": {"devEui": self._endpoint(2 * (number % 500)), "applicationId": "a", "deviceProfileId": "p"},
            "devAddr": "01020304",
            "fCnt": number,
            "fPort": 26,
            "data": "FAAAAAAAAAAAAAAA",
            "dr": 5,
            "rxInfo": [{"gatewayId": "0011223344556677", "rssi": -80, "snr": 7.5}],
            "regionConfigId": "eu868",
        }
        return json.dumps(event).encode()

    def _batch(self, number: int) -> bytes:
        first = number * BATCH
        said = [{"endpoint": self._endpoint(first + index), "report": "14" + "00" * 10} for index in range(BATCH)]
        return json.dumps({"reports": said}).encode()

    def _endpoint(self, number: int) -> str:
        return f"{number % self.nodes + 1:016x}"

    def measure_memory(self) -> dict[str, float]:
        """Of a Celery worker and its child together the larger one's peak, while it ticks and drains."""
        from celery import current_app
        from django.utils import timezone

        from updates.campaigns import actions

        actions.pause(campaign_id=self.campaign.pk, actor="bench", now=self.scene.now)
        actions.resume(campaign_id=self.campaign.pk, actor="bench", now=timezone.now())
        self.scene.now = timezone.now() - timedelta(seconds=1)
        command = [sys.executable, "-m", "celery", "-A", "fleet", "worker", "-Q", "campaigns,links", "-c", "1"]
        with _process([*command, "-n", "bench@here", "--loglevel", "error"]) as worker:
            for _ in range(10):
                self._answers()
                current_app.send_task("updates.tasks.tick_campaigns")
                current_app.send_task("updates.tasks.drain_link_events", queue="links")
                time.sleep(1)
            return {"worker_rss_mb": max(_peak_mb(pid) for pid in [worker.pid, *_children(worker.pid)])}


def _timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _environment() -> dict[str, str]:
    from django.db import connection

    address, _, query = os.environ["DATABASE_URL"].partition("?")
    url = f"{address.rpartition('/')[0]}/{connection.settings_dict['NAME']}" + (f"?{query}" if query else "")
    return os.environ | {"DATABASE_URL": url, "LOG_LEVEL": "ERROR"}


@contextmanager
def _process(command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(command, env=_environment(), stdout=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(30)


@contextmanager
def _web() -> Iterator[int]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "granian", "--interface", "wsgi", "--workers", "2", "--port", str(port)]
    with _process([*command, "--no-access-log", "--log-level", "error", "fleet.wsgi:application"]):
        until = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health/live", timeout=2).close()
                break
            except OSError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.1)
        yield port


def _post(port: int, path: str, secret: str, body: Callable[[int], bytes], expected: int) -> tuple[int, float]:
    """Over a few connections for HTTP_S: how many were answered, and in how many seconds. Raises for another answer."""
    numbers, answered, errors = iter(range(2**62)), [0] * CONNECTIONS, []
    began = time.perf_counter()

    def client(index: int) -> None:
        try:
            with socket.create_connection(("127.0.0.1", port)) as connection, connection.makefile("rb") as answers:
                while time.perf_counter() - began < HTTP_S:
                    content = body(next(numbers))
                    head = (
                        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {secret}\r\n"
                        f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
                    )
                    connection.sendall(head.encode() + content)
                    _read_answer(answers, expected)
                    answered[index] += 1
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=client, args=(index,)) for index in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return sum(answered), time.perf_counter() - began


def _read_answer(answers: Any, expected: int) -> None:
    status, length = answers.readline(), 0
    while (line := answers.readline()) not in (b"\r\n", b""):
        if line.lower().startswith(b"content-length:"):
            length = int(line.split(b":")[1])
    body = answers.read(length)
    if int(status.split()[1]) != expected:
        raise RuntimeError(f"{status!r} {body[:300]!r}")


def _children(pid: int) -> list[int]:
    with open(f"/proc/{pid}/task/{pid}/children") as file:  # noqa: PTH123
        return [int(child) for child in file.read().split()]


def _peak_mb(pid: int) -> float:
    with open(f"/proc/{pid}/status") as file:  # noqa: PTH123
        return next(int(line.split()[1]) / 1024 for line in file if line.startswith("VmHWM"))
