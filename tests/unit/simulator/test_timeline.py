from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from devices.simulator.chirpstack.network_server import full_counter
from devices.simulator.chirpstack.timeline import Timeline
from devices.simulator.clock import Clock
from devices.simulator.lorawan.fleet import LorawanFleet
from devices.simulator.lorawan.spec import LorawanSpec


def play(schedule: list[float], *, late_s: float = 0.0) -> list[float]:
    """The times that events were told, in the order they ran; the loop is held up for `late_s` seconds."""

    async def scene() -> list[float]:
        timeline = Timeline(Clock(1000.0))
        done, ran = asyncio.Event(), []

        def event(time_s: float) -> None:
            ran.append(time_s)
            assert timeline.now() == time_s
            if len(ran) == len(schedule):
                done.set()

        for time_s in schedule:
            timeline.at(time_s, event)
        time.sleep(late_s)
        await asyncio.wait_for(done.wait(), 10)
        return ran

    return asyncio.run(scene())


def test_events_run_in_the_order_of_their_times() -> None:
    assert play([30.0, 10.0, 20.0, 10.0]) == [10.0, 10.0, 20.0, 30.0]


def test_a_loop_that_is_late_changes_neither_order_nor_times() -> None:
    assert play([30.0, 10.0, 20.0], late_s=0.1) == [10.0, 20.0, 30.0]


def test_an_event_that_makes_another_one_does_so_from_its_own_time() -> None:
    async def scene() -> list[float]:
        timeline, done, ran = Timeline(Clock(1000.0)), asyncio.Event(), list[float]()

        def second(time_s: float) -> None:
            ran.append(time_s)
            done.set()

        timeline.at(10.0, lambda time_s: timeline.at(time_s + 1.0, second))
        time.sleep(0.05)
        await asyncio.wait_for(done.wait(), 10)
        return ran

    assert asyncio.run(scene()) == [11.0]


def test_a_defect_ends_the_run(tmp_path: Path) -> None:
    async def scene() -> None:
        fleet = LorawanFleet(LorawanSpec(), time_scale=1000.0, seed=1, directory=tmp_path)
        await fleet.start("127.0.0.1:0")
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
        fleet.chirpstack.timeline.at(1.0, lambda _: [][0])
        await asyncio.wait_for(fleet.run(asyncio.Event()), 10)

    with pytest.raises(IndexError):
        asyncio.run(scene())


@pytest.mark.parametrize(
    ("expected", "on_air", "whole"),
    [
        (0, 0, 0),
        (5, 7, 7),
        (5, 4, 4),
        (65535, 65535, 65535),
        (65536, 0, 65536),
        (65536, 65535, 65535),
        (131071, 2, 131074),
    ],
)
def test_sixteen_bits_on_air_stand_for_the_nearest_counter(expected: int, on_air: int, whole: int) -> None:
    assert full_counter(expected, on_air) == whole
