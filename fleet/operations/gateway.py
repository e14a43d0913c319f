"""The heart of an asyncio gateway: a task of its loop, so that a loop that hangs is seen."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from fleet.operations.heart import EVERY_S, Heart
from fleet.operations.models import ProcessKind


@asynccontextmanager
async def beating(*, serves: str) -> AsyncIterator[None]:
    """Beats while the block runs, and takes leave after it. `serves` is the LinkKind of the gateway."""
    heart = Heart(ProcessKind.GATEWAY, serves=serves)

    async def run() -> None:
        while True:
            await asyncio.to_thread(heart.beat)
            await asyncio.sleep(EVERY_S)

    task = asyncio.create_task(run())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await asyncio.to_thread(heart.stop)
