"""A worker's heart: a timer of its event loop, which stands still while the worker has lost its broker."""

from __future__ import annotations

from typing import Any

from celery import bootsteps, signals

from fleet.operations.heart import EVERY_S, Heart
from fleet.operations.models import ProcessKind


class HeartStep(bootsteps.StartStopStep):
    """Started with the consumer, so that it beats only between a connection and its loss."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, consumer: Any, **kwargs: Any) -> None:
        self._timer: Any = None
        self._heart: Heart | None = None
        super().__init__(consumer, **kwargs)
        signals.worker_shutdown.connect(self._leave)

    def start(self, consumer: Any) -> None:
        queues = ",".join(sorted(consumer.app.amqp.queues.consume_from))
        self._heart = Heart(ProcessKind.WORKER, name=consumer.hostname, serves=queues)
        self._heart.beat()
        self._timer = consumer.timer.call_repeatedly(EVERY_S, self._heart.beat)

    def stop(self, consumer: Any) -> None:
        """The broker is lost, or the worker ends; which of the two, `worker_shutdown` tells."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    shutdown = stop

    def _leave(self, **kwargs: object) -> None:
        if self._heart is not None:
            self._heart.stop()
