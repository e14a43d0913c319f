"""Reports over the API: kept when answered, acted on by a worker, harmless when they come twice."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from devices.models import LinkEvent, NodePresence
from devices.wire import NodeState
from tests.integration.api.conftest import Caller
from tests.integration.updates.campaigns.conftest import books_are_right  # noqa: F401
from tests.integration.updates.campaigns.far_end import TrueNode
from tests.integration.updates.campaigns.scene import Scene
from updates.models import Campaign

pytestmark = pytest.mark.django_db


def test_a_batch_of_reports_confirms_the_nodes_that_prove_what_they_run(call: Caller) -> None:
    scene = Scene(nodes=4, now=timezone.now())
    campaign = scene.tick(scene.campaign())
    proving, lying, claiming, quiet = scene.fleet
    said = _success(scene, campaign)
    batch = {
        "reports": [
            {"endpoint": proving.endpoint, "report": said, "holds": scene.new.digest},
            {"endpoint": lying.endpoint, "report": said, "holds": scene.old.digest},
            {"endpoint": claiming.endpoint, "report": said},
        ]
    }

    for _ in range(2):
        response = call("operator", "POST", "/reports", batch)
        assert (response.status_code, response.json()) == (202, {"taken": 3, "unknown": []})
    scene.drain()

    states = dict(campaign.node_updates.values_list("node__endpoint", "state"))
    assert states == {
        proving.endpoint: "confirmed",
        lying.endpoint: "failed",
        claiming.endpoint: "offered",
        quiet.endpoint: "offered",
    }


def test_a_claim_that_comes_before_its_proof_waits_for_it(call: Caller) -> None:
    scene = Scene(nodes=1, now=timezone.now())
    campaign = scene.tick(scene.campaign())
    (node,) = scene.fleet

    for said in ({"report": _success(scene, campaign)}, {"holds": scene.new.digest}):
        call("operator", "POST", "/reports", {"reports": [{"endpoint": node.endpoint, **said}]})
        scene.drain()

    assert campaign.node_updates.get().state == "confirmed"


def _success(scene: Scene, campaign: Campaign) -> str:
    node = TrueNode(1, scene.new.digest, scene.old.digest)
    return node.report(NodeState.CONFIRMED, campaign.sequence).encode().hex()


def test_a_worker_takes_a_report_for_a_sign_of_life_at_the_time_when_it_was_heard(call: Caller) -> None:
    scene = Scene(nodes=1, now=timezone.now())
    (node,) = scene.fleet
    heard = timezone.now() - timedelta(minutes=7)
    call(
        "operator", "POST", "/reports", {"reports": [{"endpoint": node.endpoint, "holds": "", "at": heard.isoformat()}]}
    )
    assert not NodePresence.objects.exists(), "the web process keeps the rows and answers"
    scene.drain()
    assert NodePresence.objects.get(node=node).last_seen_at == heard
    assert LinkEvent.objects.get().at == heard


def test_endpoints_that_no_node_has_are_named_and_the_others_are_kept(call: Caller) -> None:
    (node,) = Scene(nodes=1).fleet
    reports = [{"endpoint": name, "holds": ""} for name in ("stranger", node.endpoint)]
    response = call("operator", "POST", "/reports", {"reports": reports})
    assert response.json() == {"taken": 1, "unknown": ["stranger"]}
    assert LinkEvent.objects.count() == 1


@pytest.mark.parametrize(
    ("report", "field"),
    [
        ({"endpoint": "node-0000"}, "reports.0"),
        ({"endpoint": "node-0000", "report": "1"}, "report"),
        ({"endpoint": "node-0000", "holds": "abc"}, "holds"),
        ({"endpoint": "node-0000", "holds": "", "at": "2999-01-01T00:00:00Z"}, "at"),
    ],
)
def test_a_report_that_cannot_be_read_is_refused_and_nothing_is_kept(
    call: Caller, report: dict[str, str], field: str
) -> None:
    Scene(nodes=1)
    response = call("operator", "POST", "/reports", {"reports": [{"endpoint": "node-0000", "holds": ""}, report][::-1]})
    assert response.status_code == 422
    assert field in response.json()["detail"]
    assert not LinkEvent.objects.exists()
