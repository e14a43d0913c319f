"""SIGKILL of any part at random moments of a real campaign over both radios: nothing lost, nothing doubled, it ends by itself."""

from __future__ import annotations

import random
import signal
import subprocess
import threading
from pathlib import Path

import pytest

from demo.client import Client
from demo.opening import open_story
from demo.patient import PatientClient
from demo.stage import Stage
from demo.story import wrong_slots

NODES = 60
KILLS = 20
# Three, so that the campaign is still running when the last part is killed.
WAVES = [{"percent": 5, "soak_s": 300}, {"percent": 30, "soak_s": 300}, {"percent": 100, "soak_s": 0}]
PRODUCT = ["web", "worker-campaigns", "worker-links", "worker-pipeline", "beat", "lwm2m"]
SERVICES = ["postgres", "redis"]


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_campaign_survives_twenty_kills_of_its_parts(tmp_path: Path) -> None:
    # DATABASE_URL and REDIS_URL of the test run are not used: servers that are killed must be our own.
    stage = Stage(var=tmp_path, time_scale=60, say=print, own_services=True)
    try:
        opened = open_story(stage, nodes=NODES, seed=7, loss=0.1, client_type=PatientClient)
        story, state = opened.story, opened.state
        campaign_id = story.start_campaign(WAVES)["id"]

        killer = Killer(stage, story.client, campaign_id)
        killer.start()
        story.watch(campaign_id, within_s=600)
        killer.join(timeout=120)
        assert killer.landed == KILLS

        updates = story.node_updates(campaign_id)
        assert len(updates) == NODES
        assert story.wrong_ends(updates) == []
        stage.wait_for_status(state)
        assert wrong_slots(state, story.held_after_update()) == []
        assert "no event is missing" in stage.manage("reconcile")
    except subprocess.CalledProcessError as error:
        pytest.fail(f"{error}\n{error.stdout}\n{error.stderr}")
    finally:
        stage.close()


class Killer(threading.Thread):
    """Kills one part after the other while the campaign runs: each kind at least once, the rest by chance."""

    def __init__(self, stage: Stage, client: Client, campaign_id: int) -> None:
        super().__init__(daemon=True)
        self.stage, self.client, self.campaign_id = stage, client, campaign_id
        self.landed = 0

    def run(self) -> None:
        chance, pause = random.Random(20261123), threading.Event()
        names = [*PRODUCT, *SERVICES]
        order = names + [chance.choice(names) for _ in range(KILLS - len(names))]
        chance.shuffle(order)
        for name in order:
            pause.wait(chance.uniform(0.5, 3))
            while self.stage.pid(name) is None:  # between two lives
                pause.wait(0.1)
            if self.client.get(f"/campaigns/{self.campaign_id}")["state"] != "running":
                return
            self.stage.kill(name, signal.SIGKILL)
            self.landed += 1
            print(f"SIGKILL {name}")
