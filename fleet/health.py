"""Whether the service beside it serves: `python -m fleet.health http|coap PORT`, `... worker QUEUE`. Exit code 0 or 1.

Asked through the same door as users and nodes come in by, on this machine only.
"""

from __future__ import annotations

import http.client
import secrets
import socket
import sys

TIMEOUT_S = 3.0


def http_answers(port: str) -> bool:
    """Whether the web process answers and reaches its database and its broker."""
    connection = http.client.HTTPConnection("localhost", int(port), timeout=TIMEOUT_S)
    connection.request("GET", "/health/ready?checks=database,broker")
    return connection.getresponse().status == http.HTTPStatus.OK


def coap_answers(port: str) -> bool:
    """Whether a CoAP ping, an empty confirmable message, is answered by a reset (RFC 7252, 4.3)."""
    message_id = secrets.token_bytes(2)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(TIMEOUT_S)
        client.connect(("127.0.0.1", int(port)))
        client.send(b"\x40\x00" + message_id)
        return client.recv(64) == b"\x70\x00" + message_id


def worker_answers(queue: str) -> bool:
    """Whether the worker of this machine answers a ping through the broker and takes from `queue`."""
    from fleet.celery import app

    name = f"{queue}@{socket.gethostname()}"
    taken = app.control.inspect(destination=[name], timeout=TIMEOUT_S, limit=1).active_queues() or {}
    return queue in [entry["name"] for entry in taken.get(name, [])]


def beat_lives(host: str) -> bool:
    """Whether beat on `host`, or on this machine for `here`, said lately that it sends wake-ups."""
    from datetime import timedelta

    import django

    django.setup()
    from django.utils import timezone

    from fleet.operations.heart import DEAD_AFTER_S
    from fleet.operations.models import Heartbeat, ProcessKind

    name = f"beat@{socket.gethostname() if host == 'here' else host}"
    alive = Heartbeat.objects.filter(kind=ProcessKind.BEAT, name=name)
    return alive.filter(beat_at__gte=timezone.now() - timedelta(seconds=DEAD_AFTER_S)).exists()


CHECKS = {"beat": beat_lives, "http": http_answers, "coap": coap_answers, "worker": worker_answers}


def main(kind: str, what: str) -> int:
    try:
        healthy = CHECKS[kind](what)
    except (OSError, http.client.HTTPException) as error:
        print(f"{kind} {what}: {error}", file=sys.stderr)
        return 1
    return 0 if healthy else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
