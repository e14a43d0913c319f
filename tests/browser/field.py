"""What goes on behind a page while it is looked at: workers, in a thread of their own."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

from django.db import connection
from django.utils import timezone
from playwright.sync_api import Page

from devices.tasks import feed_lorawan
from updates.campaigns import engine, ingest

PATIENCE_S = 60.0


@contextlib.contextmanager
def worker(campaign_id: int) -> Iterator[None]:
    """What Celery's workers do, over and over, in a thread with its own connection."""
    stop = threading.Event()
    failures: list[Exception] = []

    def work() -> None:
        try:
            while not stop.wait(0.05):
                engine.tick(campaign_id=campaign_id, now=timezone.now())
                feed_lorawan()
                while ingest.drain(now=timezone.now()):
                    pass
        except Exception as error:
            failures.append(error)
        finally:
            connection.close()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(30)
    assert failures == []


def wait(page: Page, until: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not until():
        assert time.monotonic() < deadline, "it did not happen in time"
        page.wait_for_timeout(50)
