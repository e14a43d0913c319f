"""The demo's exit code means something only if it sees what went wrong."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from demo.cast import ENDS, PROFILES, Actor, cast
from demo.client import Client
from demo.story import Story, wrong_slots

OLD, NEW = b"old image" * 10, b"new image" * 10
SLOT = 256


def story(*actors: Actor) -> Story:
    told = Story(client=Client(base_url="", token=""), actors=list(actors), say=print)
    told.images = {"1.0": (hashlib.sha256(OLD).hexdigest(), OLD), "1.1": (hashlib.sha256(NEW).hexdigest(), NEW)}
    return told


def actor(behaviour: str, profile: str = str(PROFILES[0]["name"])) -> Actor:
    return Actor(f"node-{behaviour}", "nbiot", profile, 1, behaviour, loss=0.1)


def update(state: str, method: str = "command") -> dict[str, Any]:
    return {"state": state, "cause": "", "method": method}


def test_the_same_seed_plays_the_same_fleet_with_every_behaviour() -> None:
    fleet = cast(nodes=300, seed=3, loss=0.1)
    assert fleet == cast(nodes=300, seed=3, loss=0.1) != cast(nodes=300, seed=4, loss=0.1)
    assert {one.behaviour for one in fleet} == set(ENDS)


def test_half_of_the_fleet_is_on_lorawan_at_every_data_rate_with_uneven_loss() -> None:
    on_lorawan = [one for one in cast(nodes=300, seed=3, loss=0.1) if one.link == "lorawan"]
    assert len(on_lorawan) == 150
    assert {one.data_rate for one in on_lorawan} == set(range(6))
    assert sum(one.loss for one in on_lorawan) / 150 == pytest.approx(0.1, abs=0.02)
    assert min(one.loss for one in on_lorawan) < 0.05 < 0.15 < max(one.loss for one in on_lorawan)


def test_odd_nodes_are_only_among_those_that_the_campaign_reaches() -> None:
    assert {one.behaviour for one in cast(nodes=300, seed=3, loss=0.1) if one.must_end == "skipped"} == {"normal"}


def test_a_node_that_ends_otherwise_than_it_must_is_named() -> None:
    told = story(actor("normal"), actor("liar"))
    assert told.wrong_ends({"node-normal": update("confirmed"), "node-liar": update("failed")}) == []
    assert (
        "node-liar (liar) ended confirmed"
        in told.wrong_ends({"node-normal": update("confirmed"), "node-liar": update("confirmed")})[0]
    )


def test_a_node_without_its_previous_image_must_go_back_by_patch() -> None:
    told = story(actor("lost-previous"))
    assert told.wrong_returns({"node-lost-previous": update("confirmed", "patch")}) == []
    assert told.wrong_returns({"node-lost-previous": update("confirmed", "command")}) != []


def test_only_a_node_with_a_strange_base_may_stay_behind_in_a_rollback() -> None:
    assert story(actor("wrong-base")).wrong_returns({"node-wrong-base": update("skipped", "patch")}) == []
    assert story(actor("normal")).wrong_returns({"node-normal": update("skipped")}) != []
    assert story(actor("normal")).wrong_returns({}) != []


def test_one_wrong_byte_in_the_active_slot_is_found(tmp_path: Path) -> None:
    state, tmp_path = tmp_path, tmp_path / "nbiot"
    tmp_path.mkdir()
    node = {"active_slot": 1, "slot_bytes": SLOT, "active": hashlib.sha256(NEW).hexdigest()}
    (tmp_path / "status.json").write_text(json.dumps({"nodes": {"node-1": node}}))
    flash = bytearray(b"\xff" * SLOT + NEW + b"\xff" * SLOT)
    (tmp_path / "node-1.flash").write_bytes(flash)
    assert wrong_slots(state, {"node-1": NEW}) == []
    flash[SLOT + len(NEW) - 1] ^= 1
    (tmp_path / "node-1.flash").write_bytes(flash)
    assert len(wrong_slots(state, {"node-1": NEW})) == 1


def test_nodes_that_must_not_be_updated_must_hold_what_they_left_the_factory_with() -> None:
    told = story(actor("normal"), actor("liar"), actor("wrong-base"))
    assert told.held_after_update() == {"node-normal": NEW, "node-liar": OLD, "node-wrong-base": NEW}
    assert told.held_after_rollback() == {"node-normal": OLD, "node-liar": OLD, "node-wrong-base": NEW}
