"""The stand-in in a thread of its own, for tests and programs that have no event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from devices.simulator.lorawan.fleet import LorawanFleet
from devices.simulator.lorawan.spec import LorawanSpec, check_network

Result = TypeVar("Result")
_START_S = 30.0


class BackgroundChirpStack:
    """`with BackgroundChirpStack(directory) as stand_in`: listens on a free port of 127.0.0.1; ends with the block.

    `address` is HOST:PORT, `token` an administrator's API key. Without `spec` it is a ChirpStack without nodes.
    With `nodes_wait` they are not powered before `call(LorawanFleet.start_nodes)`: an application that is set up in
    between misses none of their events.
    """

    def __init__(
        self,
        directory: Path,
        spec: LorawanSpec | None = None,
        *,
        time_scale: float = 60.0,
        seed: int = 1,
        nodes_wait: bool = False,
    ) -> None:
        """Raises SpecInvalid."""
        self._spec = spec or LorawanSpec()
        check_network(self._spec)
        self._directory, self._time_scale, self._seed = directory, time_scale, seed
        self._nodes_wait = nodes_wait
        self._ready = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._main, name="stand-in ChirpStack", daemon=True)

    def __enter__(self) -> BackgroundChirpStack:
        self._thread.start()
        if not self._ready.wait(_START_S):
            raise TimeoutError("the stand-in did not start")
        if self._failure is not None:
            raise self._failure
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(_START_S)
        if self._failure is not None:
            raise self._failure

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.fleet.chirpstack.port}"

    @property
    def token(self) -> str:
        return self.fleet.chirpstack.token

    def call(self, what: Callable[[LorawanFleet], Result]) -> Result:
        """The result of `what(fleet)`, run where the fleet lives."""

        async def run() -> Result:
            return what(self.fleet)

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(_START_S)

    def status(self) -> dict[str, Any]:
        return self.call(lambda fleet: fleet.status())

    def _main(self) -> None:
        try:
            asyncio.run(self._live())
        except BaseException as error:  # handed to the thread that waits
            self._failure = error
        finally:
            self._ready.set()

    async def _live(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self.fleet = LorawanFleet(self._spec, time_scale=self._time_scale, seed=self._seed, directory=self._directory)
        await self.fleet.listen("127.0.0.1:0")
        if not self._nodes_wait:
            self.fleet.start_nodes()
        self._ready.set()
        await self.fleet.run(self._stop)
