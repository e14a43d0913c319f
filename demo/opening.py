"""From nothing to a fleet that has said what it holds: the same for the demo and for tests that play it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from demo.cast import cast
from demo.client import Client
from demo.stage import Stage
from demo.story import Story
from updates.patches.signing import generate_key_file


@dataclass(frozen=True)
class Opened:
    """`state`: directory of what the simulated networks and nodes hold."""

    story: Story
    state: Path


def open_story(stage: Stage, *, nodes: int, seed: int, loss: float, client_type: type[Client] = Client) -> Opened:
    """Starts services, product and both networks, builds the versions and registers the fleet."""
    stage.say("starting PostgreSQL and Redis")
    stage.open()
    signer = generate_key_file(stage.var / "signing-key.pem")
    user, password = stage.new_login()
    token = stage.manage("create_token", user, "--name", "demo", "--role", "admin")
    stage.run_product()
    client = client_type(base_url=stage.base_url, token=token)
    stage.wait_for_web(client)
    speed = f"(fleet time runs {stage.time_scale:g}x)"
    stage.say(f"dashboard: {stage.base_url}/  user: {user}  password: {password}  {speed}")
    story = Story(client=client, actors=cast(nodes=nodes, seed=seed, loss=loss), say=stage.say)
    story.prepare()
    class_hash = story.register()["class_hash"]
    specification = story.specification(
        class_hash=class_hash, public_key=signer.public_key, directory=stage.var / "factory"
    )
    state = stage.run_nodes(specification=specification, seed=seed)
    chirpstack = f"127.0.0.1:{stage.chirpstack_port}"
    story.connect_chirpstack(target=chirpstack, token=stage.chirpstack_token(state), event_base_url=stage.base_url)
    story.wait_for_nodes()
    return Opened(story, state)
