"""The same campaign with little loss and with much: both end right, and the second takes more frames and more hours."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from demo.opening import open_story
from demo.stage import Stage
from demo.story import wrong_slots

NODES = 24


@dataclass(frozen=True)
class Played:
    """`hours`: fleet hours from the start of the campaign until it ended; `frames_down`: over LoRaWAN meanwhile."""

    wrong: list[str]
    frames_down: int
    hours: float


def play(var: Path, *, loss: float) -> Played:
    stage = Stage(var=var, time_scale=60, say=print, own_services=True)
    try:
        opened = open_story(stage, nodes=NODES, seed=5, loss=loss)
        story, status = opened.story, opened.state / "lorawan" / "status.json"
        before = json.loads(status.read_text())
        campaign_id = story.start_campaign()["id"]
        story.watch(campaign_id, within_s=1500)
        stage.wait_for_status(opened.state)
        after = json.loads(status.read_text())
        wrong = story.wrong_ends(story.node_updates(campaign_id))
        wrong += wrong_slots(opened.state, story.held_after_update())
        return Played(
            wrong=wrong,
            frames_down=after["totals"]["frames_down"] - before["totals"]["frames_down"],
            hours=(after["simulated_s"] - before["simulated_s"]) / 3600,
        )
    finally:
        stage.close()


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_forty_percent_loss_ends_right_and_takes_more_frames_and_hours(tmp_path: Path) -> None:
    # Side by side: each is mostly waiting for nodes to wake up.
    with ThreadPoolExecutor() as both:
        less = both.submit(play, tmp_path / "little", loss=0.05)
        more = both.submit(play, tmp_path / "much", loss=0.4)
        little, much = less.result(), more.result()
    print(
        f"5 % loss: {little.frames_down} frames down, {little.hours:.2f} h; 40 %: {much.frames_down}, {much.hours:.2f} h"
    )
    assert (little.wrong, much.wrong) == ([], [])
    assert much.frames_down > 1.2 * little.frames_down
    assert much.hours > little.hours
