"""SIGKILL of any part at random moments of a real campaign over real UDP: nothing lost, nothing doubled, it ends by itself."""

from __future__ import annotations

import random
import signal
import subprocess
import threading
from pathlib import Path

import pytest

from demo.cast import cast
from demo.patient import PatientClient
from demo.stage import Stage
from demo.story import Story, slots, wrong_slots
from updates.patches.signing import generate_key_file

NODES = 60
KILLS = 20
PRODUCT = ["web", "worker-campaigns", "worker-links", "worker-pipeline", "beat", "lwm2m"]
SERVICES = ["postgres", "redis"]


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_campaign_survives_twenty_kills_of_its_parts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chance = random.Random(20261123)
    # DATABASE_URL and REDIS_URL of the test run are not used: servers that are killed must be our own.
    stage = Stage(var=tmp_path, time_scale=60, say=print, own_services=True)
    try:
        stage.open()
        signer = generate_key_file(stage.var / "signing-key.pem")
        user, _ = stage.new_login()
        token = stage.manage("create_token", user, "--name", "kills", "--role", "admin")
        stage.run_product()
        client = PatientClient(base_url=stage.base_url, token=token)
        stage.wait_for_web(client)
        story = Story(client=client, actors=cast(nodes=NODES, seed=7), say=print)
        story.prepare()
        class_hash = story.register()["class_hash"]
        specification = story.specification(
            class_hash=class_hash, public_key=signer.public_key, directory=tmp_path / "factory"
        )
        state = stage.run_nodes(specification=specification, seed=7)
        story.wait_for_nodes()
        campaign_id = story.start_campaign()["id"]

        killed = threading.Thread(target=_kill, args=(stage, chance), daemon=True)
        killed.start()
        story.watch(campaign_id, within_s=600)
        killed.join(timeout=120)
        assert not killed.is_alive()

        updates = story.node_updates(campaign_id)
        assert len(updates) == NODES
        assert story.wrong_ends(updates) == []
        new = story.images["1.1"][0]
        stage.wait_for_status(state)
        confirmed = {endpoint: new for endpoint, update in updates.items() if update["state"] == "confirmed"}
        assert wrong_slots(slots(state), confirmed) == []
        assert "no event is missing" in stage.manage("reconcile")
    except subprocess.CalledProcessError as error:
        pytest.fail(f"{error}\n{error.stdout}\n{error.stderr}")
    finally:
        stage.close()


def _kill(stage: Stage, chance: random.Random) -> None:
    """One part after the other; each kind at least once, the rest by chance."""
    names = [*PRODUCT, *SERVICES]
    order = names + [chance.choice(names) for _ in range(KILLS - len(names))]
    chance.shuffle(order)
    pause = threading.Event()
    for name in order:
        pause.wait(chance.uniform(0.5, 4))
        print(f"SIGKILL {name}")
        stage.kill(name, signal.SIGKILL)
