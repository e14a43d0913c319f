"""What happens in the demo: versions are uploaded, nodes register, a campaign runs, and all of it goes back."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from demo.cast import FIRMWARE, GATEWAYS, OPERATORS, PROFILES, RX2_DATA_RATE, Actor
from demo.client import Client, wait_until

MODELS = Path(__file__).parent / "models"
FAMILY = "imu-exercise"
CLASSES = ["PEN", "ABD", "FEL", "IR", "ER", "TRAP", "ROW"]
# Fleet seconds: at 60x a node wakes each 8 s of the clock.
WAKE_INTERVAL_S = 480
SHORTEST_TIMER_S = 3600
# Of a node that is there, how often its timer may run out because all that it said was lost.
FALSE_SILENCE = 1e-3
# A wave with a node that never answers lasts as long as its timer, so three of them would pass five minutes of the clock.
WAVES = [{"percent": 10, "soak_s": 300}, {"percent": 100, "soak_s": 0}]
# A demo fleet is small and has more odd nodes than a real one; the limits say so openly.
GATE = {"maximum_failure_percent": 10, "maximum_silent_percent": 50}
# Which nodes are in the first wave is chance: with few nodes, one that fails by design must not halt the whole.
SMALL_FLEET, SMALL_FLEET_FAILURE_PERCENT = 200, 40
# The first wave has 10 % of the nodes, some of which never answer; with fewer nodes the gate asks for fewer.
SAMPLE_SHARE = 0.025
ENDED = ("finished", "aborted")


def timer_s(actors: list[Actor]) -> int:
    """Fleet seconds until a node of these counts as silent: so many wake-ups that the worst link gets through once.

    A wake-up brings something only if one frame gets through each way; retransmissions and further gateways, which
    make it more likely, are not counted.
    """
    through = (1 - max(actor.loss for actor in actors)) ** 2
    wakes = math.ceil(math.log(FALSE_SILENCE) / math.log(1 - through)) if through < 1 else 1
    return max(SHORTEST_TIMER_S, wakes * WAKE_INTERVAL_S)


class Story:
    def __init__(self, *, client: Client, actors: list[Actor], say: Callable[[str], None]) -> None:
        self.client, self.actors, self.say = client, actors, say
        self.timer_s = timer_s(actors)
        self.versions: dict[str, dict[str, Any]] = {}
        self.images: dict[str, tuple[str, bytes]] = {}

    def prepare(self) -> None:
        """Profiles, then three versions: two that pass and one that the pipeline refuses."""
        for profile in PROFILES:
            self.client.post("/profiles", profile)
        self.client.post("/families", {"name": FAMILY, "preprocessing": "imu-standardized-v1", "class_names": CLASSES})
        for name in ("1.0", "1.1", "unsupported"):
            self.versions[name] = self._upload(name)
        for name in self.versions:
            self._wait_for_verdict(name)
        if [self.versions[name]["state"] for name in self.versions] != ["ready", "ready", "refused"]:
            raise RuntimeError(f"versions did not end as they must: {self.versions}")
        for name in ("1.0", "1.1"):
            image = next(one for one in self.versions[name]["images"] if one["chosen_for"])
            self.images[name] = (image["digest"], self.client.get_bytes(f"/images/{image['digest']}/data"))

    def _upload(self, name: str) -> dict[str, Any]:
        files = {
            "onnx": (MODELS / f"imu-{name}.onnx").read_bytes(),
            "calibration": (MODELS / "imu-calibration.npz").read_bytes(),
            "evaluation": (MODELS / "imu-evaluation.npz").read_bytes(),
        }
        fields = {"family": FAMILY, "name": name}
        return dict(self.client.upload("/versions", fields=fields, files=files))

    def _wait_for_verdict(self, name: str) -> None:
        shown = ""

        def decided() -> bool:
            nonlocal shown
            version = self.versions[name] = self.client.get(f"/versions/{self.versions[name]['id']}")
            progress = f"version {name}: {version['state']} {version['stage']} {version['percent']} %"
            if progress != shown:
                self.say(progress)
                shown = progress
            return version["state"] in ("ready", "refused")

        wait_until(decided, within_s=180, what=f"a verdict on version {name}")
        if self.versions[name]["state"] == "refused":
            refusal = self.versions[name]["refusal"]
            self.say(f"  refused in {refusal['stage']}: {refusal['field']}: {refusal['message']}; {refusal['fix']}")

    def register(self) -> dict[str, Any]:
        """Firmware and nodes; returns what the simulated network must play."""
        io_hash = self.versions["1.0"]["images"][0]["io_hash"]
        hashes = set()
        for name, decoder in sorted(set(FIRMWARE.values())):
            build = {"name": name, "operators": OPERATORS, "io_hash": io_hash, "decoder_profile": decoder}
            hashes.add(self.client.post("/firmware-builds", build)["class_hash"])
        # The decoder is no part of the class: one signed manifest may serve both.
        [class_hash] = hashes
        nodes = [
            {
                "endpoint": actor.endpoint,
                "link": actor.link,
                "profile": actor.profile,
                "firmware_build": actor.firmware,
                "site": actor.site,
                "labels": {"behaviour": actor.behaviour},
            }
            for actor in self.actors
            if actor.link == "nbiot"  # LoRaWAN nodes are found in ChirpStack
        ]
        for at in range(0, len(nodes), 500):
            self.client.post("/nodes/bulk", {"nodes": nodes[at : at + 500]})
        return {"class_hash": class_hash}

    def connect_chirpstack(self, *, target: str, token: str, event_base_url: str) -> None:
        """Adds the network server, has it post its events here, and takes over the devices that it knows."""
        server = {"name": "chirpstack", "target": target, "token": token, "event_base_url": event_base_url}
        path = f"/network-servers/{self.client.post('/network-servers', server)['id']}"
        self.client.post(f"{path}/setup")
        found = self.client.post(f"{path}/discover")
        self.say(f"ChirpStack: {found['registered']} of {found['devices']} devices became nodes")

    def factory_image(self, behaviour: str) -> bytes:
        """What a node leaves the factory with. One with a wrong base holds bytes that this server never built."""
        data = self.images["1.0"][1]
        return bytes(reversed(data)) if behaviour == "wrong-base" else data

    def held_after_update(self) -> dict[str, bytes]:
        """What each node must hold once the campaign has ended."""
        new = self.images["1.1"][1]
        return {
            actor.endpoint: new if actor.must_end == "confirmed" else self.factory_image(actor.behaviour)
            for actor in self.actors
        }

    def held_after_rollback(self) -> dict[str, bytes]:
        """As before the campaign, but for nodes whose old image nobody here has: they keep the new one."""
        return {
            actor.endpoint: self.images["1.1"][1]
            if actor.behaviour == "wrong-base"
            else self.factory_image(actor.behaviour)
            for actor in self.actors
        }

    def wrong_returns(self, updates: dict[str, dict[str, Any]]) -> list[str]:
        """Nodes that the rollback did not bring back, though it had what they held before."""
        wrong = []
        for actor in self.actors:
            if actor.must_end != "confirmed":
                continue
            update = updates.get(actor.endpoint, {"state": "missing", "cause": "", "method": ""})
            state, method = ("skipped", "patch") if actor.behaviour == "wrong-base" else ("confirmed", update["method"])
            if actor.behaviour == "lost-previous":
                method = "patch"
            if (update["state"], update["method"]) != (state, method):
                ended = f"{update['state']} by {update['method']} ({update['cause']})"
                wrong.append(f"{actor.endpoint} ({actor.behaviour}) went back as {ended}, must be {state} by {method}")
        return wrong

    def specification(self, *, class_hash: str, public_key: bytes, directory: Path) -> dict[str, Any]:
        digest, data = self.images["1.0"]
        directory.mkdir(parents=True, exist_ok=True)
        factory = directory / "imu-1.0.tflite"
        factory.write_bytes(data)
        strange = self.factory_image("wrong-base")
        (directory / "strange.bin").write_bytes(strange)
        strange_digest = hashlib.sha256(strange).hexdigest()
        slots = {str(profile["name"]): profile["slot_bytes"] for profile in PROFILES}
        return {
            "public_keys": [public_key.hex()],
            "images": {digest: str(factory), strange_digest: str(directory / "strange.bin")},
            "gateways": GATEWAYS,
            "rx2_data_rate": RX2_DATA_RATE,
            "nodes": [
                {
                    "endpoint": actor.endpoint,
                    "class_hash": class_hash,
                    "slot_bytes": slots[actor.profile],
                    "active": strange_digest if actor.behaviour == "wrong-base" else digest,
                    "behaviour": actor.behaviour,
                    "wake_interval_s": WAKE_INTERVAL_S,
                    "firmware_build": actor.firmware,
                    "patch_decoder": actor.patch_decoder,
                    "link": actor.link,
                    "loss": actor.loss,
                    **(_lorawan(actor) if actor.link == "lorawan" else _nbiot(index)),
                }
                for index, actor in enumerate(self.actors)
            ],
        }

    def wait_for_nodes(self) -> None:
        """Until every node that ever speaks has said what it holds: a plan knows only what nodes reported."""
        expected = sum(actor.behaviour != "never" for actor in self.actors)

        def spoke() -> bool:
            known = sum(bool(node["active_digest"]) for node in self._nodes())
            self.say(f"{known} of {expected} nodes have said what they hold")
            return known >= expected

        wait_until(spoke, within_s=240, what="a first report of each node", every_s=2)

    def _nodes(self) -> list[dict[str, Any]]:
        nodes: list[dict[str, Any]] = []
        after = 0
        while page := self.client.get(f"/nodes?limit=500&after={after}")["nodes"]:
            nodes += page
            after = page[-1]["id"]
        return nodes

    def start_campaign(self, waves: list[dict[str, int]] | None = None) -> dict[str, Any]:
        campaign = self.client.post(
            "/campaigns",
            {
                "name": "IMU 1.1 to all plants",
                "version_id": self.versions["1.1"]["id"],
                "node_filter": "",
                "waves": waves or WAVES,
                "gate": self._gate(),
                "offer_timeout_s": self.timer_s,
                # A node that is made to fail fails each time: one attempt shows it, more would only take longer.
                "maximum_attempts": 1,
                "progress_timeout_s": self.timer_s,
            },
        )
        path = f"/campaigns/{campaign['id']}"

        def planned() -> bool:
            nonlocal campaign
            campaign = self.client.get(path)
            return not campaign["plan"]["pending_patches"]

        wait_until(planned, within_s=60, what="the plan's patches")
        plan = campaign["plan"]
        bytes_planned = f"{plan['bytes_sent']} B instead of {plan['bytes_full']} B"
        self.say(f"plan: {plan['reached']} of {plan['nodes']} nodes, {bytes_planned}")
        self.client.post(f"{path}/approve", {"plan_hash": campaign["plan_hash"]})
        self.client.post(f"{path}/start")
        return dict(self.client.get(path))

    def _gate(self) -> dict[str, int]:
        nodes = len(self.actors)
        failures = SMALL_FLEET_FAILURE_PERCENT if nodes < SMALL_FLEET else GATE["maximum_failure_percent"]
        return {**GATE, "maximum_failure_percent": failures, "minimum_sample": max(1, int(nodes * SAMPLE_SHARE))}

    def watch(self, campaign_id: int, *, within_s: float) -> dict[str, Any]:
        """Shows a line each time the numbers move, until the campaign has ended."""
        shown, deadline = "", time.monotonic() + within_s
        while True:
            campaign = dict(self.client.get(f"/campaigns/{campaign_id}"))
            states = Counter[str]()
            for wave in campaign["waves"]:
                states.update({state: count for state, count in wave["counts"].items() if count})
            line = f"{campaign['name']}: {campaign['state']} " + " ".join(f"{k}={v}" for k, v in sorted(states.items()))
            if line != shown:
                self.say(line)
                shown = line
            if campaign["state"] in ENDED:
                return campaign
            if campaign["state"] in ("halted", "paused"):
                raise RuntimeError(f"the campaign stands: {campaign['reason']}")
            if time.monotonic() > deadline:
                raise TimeoutError(f"the campaign did not end within {within_s:.0f} s: {line}")
            time.sleep(1)

    def node_updates(self, campaign_id: int) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        after = 0
        while page := self.client.get(f"/campaigns/{campaign_id}/nodes?limit=500&after={after}")["nodes"]:
            found |= {update["endpoint"]: update for update in page}
            after = page[-1]["id"]
        return found

    def wrong_ends(self, updates: dict[str, dict[str, Any]]) -> list[str]:
        """Nodes that did not end where their behaviour says they must."""
        return [
            f"{actor.endpoint} ({actor.behaviour}) ended {updates[actor.endpoint]['state']} "
            f"({updates[actor.endpoint]['cause']}), must be {actor.must_end}"
            for actor in self.actors
            if updates[actor.endpoint]["state"] != actor.must_end
        ]


def _nbiot(index: int) -> dict[str, Any]:
    return {"awake_s": 93, "latency_s": 0.5 + (index % 5) * 0.3, "lifetime_s": 3600}


def _lorawan(actor: Actor) -> dict[str, Any]:
    tags = {
        "profile": actor.profile,
        "firmware_build": actor.firmware,
        "site": actor.site,
        "behaviour": actor.behaviour,
    }
    return {"dev_eui": actor.endpoint, "data_rate": actor.data_rate, "gateways": actor.gateways, "tags": tags}


def wrong_slots(state: Path, expected: dict[str, bytes]) -> list[str]:
    """Nodes whose active slot is not byte for byte the image that it must hold. `state`: of both simulators.

    Which slot is active is the node's word; what stands in it is read from its flash.
    """
    places: dict[str, Path] = {}
    nodes: dict[str, Any] = {}
    for path in state.glob("*/status.json"):
        played = json.loads(path.read_text())["nodes"]
        nodes |= played
        places |= dict.fromkeys(played, path.parent)
    wrong = []
    for endpoint, image in expected.items():
        flash = (places[endpoint] / f"{endpoint}.flash").read_bytes()
        start = nodes[endpoint]["active_slot"] * nodes[endpoint]["slot_bytes"]
        if flash[start : start + len(image)] != image:
            held = nodes[endpoint]["active"][:12]
            wrong.append(f"{endpoint} holds {held}, must hold {hashlib.sha256(image).hexdigest()[:12]}")
    return wrong
