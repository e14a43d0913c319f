from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

import pytest
from django.test import Client
from django.utils import timezone

from devices.models import Node, NodeHealth, UnknownEndpoint
from fleet.accounts.models import Role
from tests import factories
from updates.models import Campaign, ModelVersion

HOSTILE = "<script>alert(1)</script>\"'&"


@dataclass
class Fleet:
    """One node in each state of a live campaign, a draft, a refused and a building version, and a hostile name each."""

    nodes: dict[str, Node]
    campaign: Campaign
    draft: Campaign
    version: ModelVersion
    refused: ModelVersion
    building: ModelVersion


@pytest.fixture
def fleet(db: None) -> Fleet:
    now = timezone.now()
    profile = factories.make_profile(name="stm32l4")
    small = factories.make_profile(name="tiny", sram_bytes=64 * 1024, reserved_sram_bytes=32 * 1024)
    old = factories.make_version(profiles=[profile, small], name="1.0.0", arena_bytes=16_000)
    new = factories.make_version(profiles=[profile, small], name="1.1.0", family=old.family, uploaded_by=HOSTILE)
    holds = old.images.get().digest
    states = [
        *("planned", "offered", "transferring", "staged", "trial", "confirmed"),
        *("failed", "rejected", "silent", "reverted", "skipped", "cancelled"),
    ]
    nodes = {
        state: factories.make_node(
            profile=small if state == "skipped" else profile,
            active_digest=holds,
            standby_digest=holds[:8],
            seen_at=now - timedelta(days=9) if state == "silent" else now - timedelta(minutes=5),
            labels={"line": "7"},
        )
        for state in states
    }
    Node.objects.filter(pk=nodes["confirmed"].pk).update(active_digest=new.images.get().digest)
    NodeHealth.objects.create(
        node=nodes["confirmed"], at=now, counters={"inferences": 1000, "fallbacks": 9, "p99_latency_us": 61_000}
    )
    UnknownEndpoint.objects.create(
        link="nbiot", endpoint=HOSTILE, address="127.0.0.1:5", first_seen_at=now, last_seen_at=now
    )
    campaign = factories.make_campaign(
        name=f"spring {HOSTILE}",
        version=new,
        waves=[[(nodes[state], state) for state in states[:6]], [(nodes[state], state) for state in states[6:]]],
    )
    campaign.waves.filter(index=0).update(verdict=factories.make_verdict("hold"))
    draft = factories.make_campaign(version=new, state="draft", waves=[[(nodes["planned"], "planned")]])
    refusal = {
        "stage": "convert",
        "code": "unsupported-operator",
        "field": "operator NonMaxSuppression",
        "message": f"no kernel on the node {HOSTILE}",
        "fix": "replace it in the model",
    }
    return Fleet(
        nodes,
        campaign,
        draft,
        new,
        factories.make_version(state="refused", refusal=refusal),
        factories.make_version(state="building", progress_percent=40, stage="quantize"),
    )


@pytest.fixture
def sign_in(client: Client) -> Callable[[Role], Client]:
    def as_role(role: Role) -> Client:
        client.force_login(factories.make_user(role))
        return client

    return as_role
