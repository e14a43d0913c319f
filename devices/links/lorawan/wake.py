"""Tells a worker that there is something to do for LoRaWAN nodes; beat does the same every second."""

from __future__ import annotations

import time

import structlog
from celery import current_app
from kombu.exceptions import OperationalError

log = structlog.get_logger(__name__)

# In one process: what comes soon after a wake-up is found by it, or by the next tick.
EVERY_S = 0.1
EXPIRES_S = 1
_woken_at = float("-inf")


def wake() -> None:
    """Call on commit. A broker that is down loses nothing."""
    global _woken_at
    if time.monotonic() - _woken_at < EVERY_S:
        return
    _woken_at = time.monotonic()
    send_wake_up()


def send_wake_up() -> None:
    """One that has waited for a second is worth nothing: a newer one stands behind it."""
    try:
        current_app.send_task("devices.tasks.feed_lorawan", expires=EXPIRES_S, retry=False)
    except OperationalError as error:
        log.warning("lorawan.no-broker", reason=str(error))
