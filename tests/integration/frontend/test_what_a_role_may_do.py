from __future__ import annotations

from collections.abc import Callable

import pytest
from django.test import Client
from django.utils import timezone

from devices.links import link_for
from devices.links.base import Recipient
from devices.models import Delivery
from fleet.accounts.models import Role
from fleet.audit.models import AuditEntry
from tests.integration.frontend.conftest import Fleet
from updates.models import Campaign, NodeUpdate

SignIn = Callable[[Role], Client]
ACTIONS = ["approve", "launch", "start", "resume", "abort", "roll-back"]


def state_of(campaign: Campaign) -> str:
    return Campaign.objects.values_list("state", flat=True).get(pk=campaign.pk)


@pytest.mark.parametrize("action", [*ACTIONS, "halt"])
def test_a_viewer_who_posts_is_refused_and_nothing_changes(fleet: Fleet, sign_in: SignIn, action: str) -> None:
    client = sign_in(Role.VIEWER)

    for campaign in (fleet.campaign, fleet.draft):
        before = state_of(campaign)
        response = client.post(f"/campaigns/{campaign.pk}/{action}/", {"plan_hash": campaign.plan_hash})

        assert response.status_code == 403
        assert "Your role does not allow this" in response.content.decode()
        assert state_of(campaign) == before
    assert not AuditEntry.objects.exists()


def test_a_viewer_may_neither_upload_nor_plan(fleet: Fleet, sign_in: SignIn) -> None:
    client = sign_in(Role.VIEWER)

    for address in ("/models/upload/", "/campaigns/new/"):
        assert client.get(address).status_code == 403
        assert client.post(address, {}).status_code == 403


@pytest.mark.parametrize("action", ["approve", "launch", "start", "resume", "roll-back"])
def test_an_operator_may_not_approve_start_resume_or_roll_back(fleet: Fleet, sign_in: SignIn, action: str) -> None:
    client = sign_in(Role.OPERATOR)

    response = client.post(f"/campaigns/{fleet.draft.pk}/{action}/", {"plan_hash": fleet.draft.plan_hash})

    assert response.status_code == 403
    assert state_of(fleet.draft) == "draft"


def test_a_viewer_sees_no_button_that_changes_anything(fleet: Fleet, sign_in: SignIn) -> None:
    client = sign_in(Role.VIEWER)

    for address in (
        "/",
        "/models/",
        "/campaigns/",
        f"/campaigns/{fleet.campaign.pk}/",
        f"/campaigns/{fleet.draft.pk}/plan/",
    ):
        body = client.get(address).content.decode()

        main = body[body.index("<main") : body.index("</main>")]
        assert 'method="post"' not in main
        assert "/upload/" not in main
        assert "/campaigns/new/" not in main
        assert not any(f"/{action}/" in main for action in ACTIONS)


def test_an_operator_halts_with_one_click(fleet: Fleet, sign_in: SignIn) -> None:
    client = sign_in(Role.OPERATOR)

    response = client.post(f"/campaigns/{fleet.campaign.pk}/halt/")

    assert response.status_code == 302
    assert state_of(fleet.campaign) == "paused"
    assert AuditEntry.objects.get().action == "campaign.pause"


def test_halting_what_has_ended_says_why_it_cannot(fleet: Fleet, sign_in: SignIn) -> None:
    client = sign_in(Role.OPERATOR)
    Campaign.objects.filter(pk=fleet.campaign.pk).update(state="finished")

    response = client.post(f"/campaigns/{fleet.campaign.pk}/halt/", follow=True)

    assert "is finished, so it cannot become paused" in response.content.decode()


def test_halt_cannot_be_reached_by_a_link(fleet: Fleet, sign_in: SignIn) -> None:
    client = sign_in(Role.OPERATOR)

    assert client.get(f"/campaigns/{fleet.campaign.pk}/halt/").status_code == 405
    assert state_of(fleet.campaign) == "running"


def test_a_post_from_another_site_is_refused(fleet: Fleet, sign_in: SignIn) -> None:
    strict = Client(enforce_csrf_checks=True)
    strict.cookies = sign_in(Role.ADMIN).cookies

    for address in (f"/campaigns/{fleet.campaign.pk}/halt/", "/models/upload/"):
        assert strict.post(address, {}).status_code == 403
    assert state_of(fleet.campaign) == "running"


def test_an_approver_approves_the_plan_that_was_shown_and_starts(fleet: Fleet, sign_in: SignIn) -> None:
    client = sign_in(Role.APPROVER)

    response = client.post(f"/campaigns/{fleet.draft.pk}/launch/", {"plan_hash": fleet.draft.plan_hash})

    assert response.status_code == 302
    campaign = Campaign.objects.get(pk=fleet.draft.pk)
    assert campaign.state == "scheduled"
    assert campaign.approved_hash == fleet.draft.plan_hash


def test_a_plan_that_changed_since_it_was_shown_is_not_approved(fleet: Fleet, sign_in: SignIn) -> None:
    client = sign_in(Role.APPROVER)

    response = client.post(f"/campaigns/{fleet.draft.pk}/launch/", {"plan_hash": "0" * 64})

    assert response.status_code == 409
    assert "The plan has changed since you read it." in response.content.decode()
    assert state_of(fleet.draft) == "draft"


def test_starting_twice_says_that_it_cannot(fleet: Fleet, sign_in: SignIn) -> None:
    client = sign_in(Role.APPROVER)
    client.post(f"/campaigns/{fleet.draft.pk}/launch/", {"plan_hash": fleet.draft.plan_hash})

    response = client.post(f"/campaigns/{fleet.draft.pk}/start/")

    assert response.status_code == 409
    assert state_of(fleet.draft) == "scheduled"


def test_going_on_after_a_halt_asks_on_a_page_first(fleet: Fleet, sign_in: SignIn) -> None:
    client = sign_in(Role.APPROVER)
    Campaign.objects.filter(pk=fleet.campaign.pk).update(state="halted")

    page = client.get(f"/campaigns/{fleet.campaign.pk}/resume/").content.decode()
    assert "accepts its numbers under your name" in page
    assert state_of(fleet.campaign) == "halted"

    client.post(f"/campaigns/{fleet.campaign.pk}/resume/")
    assert state_of(fleet.campaign) == "running"


def test_rolling_back_says_what_will_happen_and_leads_to_the_rollback(fleet: Fleet, sign_in: SignIn) -> None:
    client = sign_in(Role.APPROVER)
    address = f"/campaigns/{fleet.campaign.pk}/roll-back/"

    # Of those that ended or pull, one was confirmed and one holds a whole bundle; what they had is in standby.
    trial = NodeUpdate.objects.get(campaign=fleet.campaign, node=fleet.nodes["trial"])
    link_for(trial.node.link).command(command=b"x", nodes=[Recipient(trial.node_id, trial.pk)], now=timezone.now())
    Delivery.objects.update(state="delivered")
    page = client.get(address).content.decode()
    assert "2 nodes run this version or may switch to it soon" in page
    assert "2 nodes go back by a command" in page
    response = client.post(address)

    rollback = Campaign.objects.get(reverts=fleet.campaign)
    # The page said what was then planned.
    sent, frames = rollback.plan["bytes_sent"], rollback.plan["frames"]
    assert rollback.plan["reached"] == 2
    assert f"It sends {sent} B in {frames} frames" in page
    assert response["Location"] == f"/campaigns/{rollback.pk}/"
    assert state_of(fleet.campaign) == "aborted"
    assert client.get(f"/campaigns/{rollback.pk}/", follow=True).status_code == 200
    assert client.get("/campaigns/").status_code == 200
