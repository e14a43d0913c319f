"""The processes of the demo: the product's own commands, and a simulated network beside them."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from demo.client import ApiError, Client, wait_until
from fleet.embedded.services import Services, start_services
from fleet.embedded.supervisor import Process, Supervisor

ROOT = Path(__file__).resolve().parent.parent


def free_port(kind: socket.SocketKind, preferred: int) -> int:
    """`preferred` where it is free on loopback, else any that is."""
    for port in (preferred, 0):
        with socket.socket(socket.AF_INET, kind) as probe:
            if kind == socket.SOCK_STREAM:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise OSError(f"no free port on loopback, not even besides {preferred}")


class Stage:
    """Everything that runs, under one supervisor."""

    def __init__(self, *, var: Path, time_scale: float, say: Callable[[str], None], own_services: bool = False) -> None:
        """`own_services`: for a test that kills. PostgreSQL and Redis are started even where DATABASE_URL and REDIS_URL
        name others, and all ports are picked at random."""
        self.var, self.time_scale, self.say, self.own_services = var, time_scale, say, own_services
        # Servers share a port silently (SO_REUSEPORT): a test beside another run takes ports that nobody prefers.
        self.web_port = free_port(socket.SOCK_STREAM, 0 if own_services else 8000)
        self.lwm2m_port = free_port(socket.SOCK_DGRAM, 0 if own_services else 5683)
        self.chirpstack_port = free_port(socket.SOCK_STREAM, 0 if own_services else 8080)
        self.services: Services | None = None
        self.supervisor = Supervisor(logs=var / "log", say=say)
        self.environment: dict[str, str] = {}

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.web_port}"

    def open(self) -> None:
        """Services, then the tables; raises where either fails."""
        environment = {} if self.own_services else os.environ
        self.services = start_services(self.var, durable=True, environment=environment, say=self.say)
        self.environment = {
            **os.environ,
            **self.services.environment(),
            "MODELFLEET_VAR": str(self.var),
            "TIME_SCALE": str(self.time_scale),
            "LWM2M_PORT": str(self.lwm2m_port),
            "PYTHONUNBUFFERED": "1",
        }
        self.manage("migrate", "--verbosity", "0")
        self.supervisor.start()

    def manage(self, *arguments: str, **environment: str) -> str:
        """Output of a management command. Raises CalledProcessError with its error output shown."""
        done = subprocess.run(
            [sys.executable, "manage.py", *arguments],
            cwd=ROOT,
            env={**self.environment, **environment},
            check=False,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            self.say(done.stderr.strip())
            done.check_returncode()
        return done.stdout.strip()

    def run_product(self) -> None:
        """Web, a worker a queue, beat and the LwM2M gateway: the commands of docker-compose.yml on loopback."""
        scripts = Path(sys.executable).parent
        celery = [str(scripts / "celery"), "-A", "fleet"]
        web = [str(scripts / "granian"), "--interface", "wsgi", "--respawn-failed-workers", "--workers", "1"]
        self._add("web", [*web, "--host", "127.0.0.1", "--port", str(self.web_port), "fleet.wsgi:application"])
        for queue in ("campaigns", "links", "pipeline"):
            self._add(
                f"worker-{queue}",
                [
                    *celery,
                    "worker",
                    "-Q",
                    queue,
                    "-c",
                    "1",
                    "-n",
                    f"{queue}@demo",
                    "--without-gossip",
                    "--without-mingle",
                ],
            )
        self._add("beat", [*celery, "beat", "--schedule", str(self.var / "celerybeat-schedule")])
        self._add("lwm2m", [sys.executable, "manage.py", "lwm2m"])

    def run_nodes(self, *, specification: dict[str, Any], seed: int) -> Path:
        """Both simulated networks and their nodes; returns the directory with the state of each in its own folder."""
        state = self.var / "simulator"
        nodes = specification["nodes"]
        lorawan = ["-m", "devices.simulator.lorawan", "--grpc", f"127.0.0.1:{self.chirpstack_port}"]
        nbiot = ["-m", "devices.simulator", "--gateway", f"127.0.0.1:{self.lwm2m_port}"]
        for link, module in (("nbiot", nbiot), ("lorawan", lorawan)):
            folder = state / link
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / "specification.json"
            played = [node for node in nodes if node["link"] == link]
            network = (
                specification if link == "lorawan" else {k: v for k, v in specification.items() if k != "gateways"}
            )
            path.write_text(json.dumps({**network, "nodes": played}))
            command = [sys.executable, *module, "--spec", str(path), "--state", str(folder)]
            self._add(f"{link}-nodes", [*command, "--time-scale", str(self.time_scale), "--seed", str(seed)])
        return state

    def chirpstack_token(self, state: Path) -> str:
        """The API token that the stand-in ChirpStack has made for itself, once it listens."""
        path = state / "lorawan" / "token"

        def listens() -> bool:
            with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
                return path.exists() and probe.connect_ex(("127.0.0.1", self.chirpstack_port)) == 0

        wait_until(listens, within_s=60, what="an answer of the stand-in ChirpStack")
        return path.read_text().strip()

    def _add(self, name: str, command: list[str]) -> None:
        self.supervisor.add(Process(name=name, command=command, environment=self.environment, directory=ROOT))

    def kill(self, name: str, number: signal.Signals) -> None:
        """Signals the process of this name, of the product's or of the services."""
        self._supervisor_of(name).kill(name, number)

    def pid(self, name: str) -> int | None:
        """None while it is being started again."""
        return self._supervisor_of(name).pid(name)

    def _supervisor_of(self, name: str) -> Supervisor:
        services = self.services.supervisor if self.services else None
        return services if services is not None and name in services.names() else self.supervisor

    def new_login(self) -> tuple[str, str]:
        """A fresh password for the demo's operator at each start."""
        password = secrets.token_urlsafe(12)
        self.manage("create_user", "demo", "--role", "admin", MODELFLEET_PASSWORD=password)
        return "demo", password

    def wait_for_web(self, client: Client) -> None:
        """Until the API answers an authorised request."""

        def answers() -> bool:
            try:
                client.get("/profiles")
            except (OSError, ApiError):
                return False
            return True

        wait_until(answers, within_s=60, what=f"an answer of {self.base_url}")

    def wait_for_status(self, state: Path) -> None:
        """Until both simulators have written what their nodes hold now, not a second ago."""
        called = time.time()

        def written() -> bool:
            return all(path.stat().st_mtime > called + 0.5 for path in state.glob("*/status.json"))

        wait_until(written, within_s=30, what="the simulators' status")

    def close(self) -> None:
        self.supervisor.stop()
        if self.services is not None:
            self.services.stop()
