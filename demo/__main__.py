"""The whole product on this machine, with a simulated fleet and a campaign that runs while you watch."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

from demo.cast import LINKS
from demo.client import Client
from demo.opening import open_story
from demo.stage import ROOT, Stage
from demo.story import Story, wrong_slots


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make demo ARGS=...", description=__doc__)
    parser.add_argument("--nodes", type=int, default=300, help="size of the simulated fleet (default 300)")
    parser.add_argument("--headless", action="store_true", help="run to the end, roll back, check every slot, exit")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object on the last line")
    parser.add_argument("--time-scale", type=float, default=60, help="fleet seconds a clock second (default 60)")
    parser.add_argument("--loss", type=float, default=0.1, help="mean share of frames lost, each way (default 0.1)")
    parser.add_argument("--seed", type=int, default=1, help="of who behaves how, and of the network's luck")
    parser.add_argument("--var", type=Path, default=ROOT / "var" / "demo", help="where data stays")
    return parser.parse_args()


def main() -> int:
    options = arguments()
    started = time.monotonic()
    stopped = threading.Event()

    def say(line: str) -> None:
        print(f"[{time.monotonic() - started:6.1f} s] {line}", file=sys.stderr, flush=True)

    def interrupt(number: int, _frame: object) -> None:
        if stopped.is_set():
            return
        stopped.set()
        raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)
    stage = Stage(var=options.var / f"{int(time.time())}", time_scale=options.time_scale, say=say)
    try:
        return play(stage, options, say=say, started=started)
    except KeyboardInterrupt:
        say("stopping everything")
        return 130
    finally:
        stopped.set()
        stage.close()


def play(stage: Stage, options: argparse.Namespace, *, say: Any, started: float) -> int:
    opened = open_story(stage, nodes=options.nodes, seed=options.seed, loss=options.loss)
    story = opened.story
    campaign = story.start_campaign()
    say(f"watch it: {stage.base_url}/campaigns/{campaign['id']}/")
    story.watch(campaign["id"], within_s=1800)
    if not options.headless:
        say("the campaign has ended; roll it back from its page, or press Ctrl-C to stop everything")
        signal.pause()
    return conclude(stage, story, opened.state, campaign["id"], options, started=started, say=say)


def conclude(
    stage: Stage, story: Story, state: Path, campaign_id: int, options: argparse.Namespace, *, started: float, say: Any
) -> int:
    """Rolls back, compares every slot with what it must hold, and prints the result."""
    forward = story.node_updates(campaign_id)
    wrong = story.wrong_ends(forward)
    stage.wait_for_status(state)
    wrong += wrong_slots(state, story.held_after_update())
    rollback = story.client.post(f"/campaigns/{campaign_id}/rollback")
    story.watch(rollback["id"], within_s=900)
    back = story.node_updates(rollback["id"])
    wrong += story.wrong_returns(back)
    stage.wait_for_status(state)
    wrong += wrong_slots(state, story.held_after_rollback())
    result = summary(story, forward, back, state=state, client=story.client, campaign_id=campaign_id)
    result["duration_s"] = round(time.monotonic() - started, 1)
    for line in wrong:
        say(f"WRONG: {line}")
    if options.json:
        print(json.dumps(result), flush=True)
    return 1 if wrong else 0


def summary(
    story: Story,
    forward: dict[str, dict[str, Any]],
    back: dict[str, dict[str, Any]],
    *,
    state: Path,
    client: Client,
    campaign_id: int,
) -> dict[str, Any]:
    states = Counter(update["state"] for update in forward.values())
    campaign = client.get(f"/campaigns/{campaign_id}")
    confirmed_back = [update for update in back.values() if update["state"] == "confirmed"]
    links = {}
    for link in LINKS:
        mine = [forward[actor.endpoint] for actor in story.actors if actor.link == link]
        confirmed = sum(update["state"] == "confirmed" for update in mine)
        bytes_sent = sum(update["bytes_sent"] for update in mine)
        links[link] = {"nodes": len(mine), "confirmed": confirmed, "bytes_sent": bytes_sent}
    status = json.loads((state / "lorawan" / "status.json").read_text())
    radio = ("frames_up", "frames_down", "lost", "airtime_down_s", "duty_cycle_refusals")
    links["lorawan"] |= {key: status["totals"][key] for key in radio} | {"simulated_s": status["simulated_s"]}
    return {
        "nodes": len(story.actors),
        **{name: states[name] for name in ("confirmed", "failed", "rejected", "silent", "skipped")},
        "reverted": states["reverted"],
        "bytes_full": campaign["plan"]["bytes_full"],
        "bytes_sent": sum(update["bytes_sent"] for update in forward.values()),
        "duration_s": 0.0,
        "links": links,
        "rollback": {
            "nodes": len(back),
            "reverted": len(confirmed_back),
            "by_command": sum(update["method"] == "command" for update in confirmed_back),
            "by_patch": sum(update["method"] == "patch" for update in confirmed_back),
        },
    }


if __name__ == "__main__":
    sys.exit(main())
