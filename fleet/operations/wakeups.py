"""Wake-ups carry the id of the request that sent them, and what they make a worker do is logged under it."""

from __future__ import annotations

import time
from typing import Any

import structlog
from celery import signals
from django.db import transaction

from fleet.operations.logs import request_id_from

_HEADER = "request_id"
log = structlog.get_logger(__name__)
_began: dict[str, float] = {}


def wake(task: str) -> None:
    """Wakes a worker on commit, rather than at the next beat.

    A broker that is away costs nothing but the second until beat's next wake-up: the commit stands.
    """

    def send() -> None:
        from fleet.celery import app

        app.send_task(task, expires=10, retry=False)

    transaction.on_commit(send, robust=True)


@signals.before_task_publish.connect
def _name_the_request(headers: dict[str, Any], **kwargs: object) -> None:
    request_id = structlog.contextvars.get_contextvars().get("request_id")
    if request_id:
        headers[_HEADER] = request_id


@signals.task_prerun.connect
def _begin(task_id: str, task: Any, **kwargs: object) -> None:
    woken_by = task.request.get(_HEADER)
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(request_id=request_id_from(woken_by), task=task.name)
    _began[task_id] = time.monotonic()
    # Beat's wake-ups come every second and mostly find nothing; what they do find says so itself.
    log.log(20 if woken_by else 10, "task.began")


@signals.task_postrun.connect
def _end(task_id: str, task: Any, state: str, **kwargs: object) -> None:
    took = time.monotonic() - _began.pop(task_id, time.monotonic())
    woken_by = task.request.get(_HEADER)
    log.log(20 if woken_by else 10, "task.ended", state=state, duration_ms=round(1000 * took, 1))
    structlog.contextvars.clear_contextvars()
