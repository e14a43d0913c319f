"""The list of campaigns, and the history and the gate of one."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest
from django.db import connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from fleet.accounts.models import Role
from tests import factories
from tests.integration.frontend.conftest import Fleet
from updates import selectors as updates
from updates.campaigns import actions
from updates.campaigns.history import ENGINE, history
from updates.models import Campaign, CampaignMove, Wave
from updates.states import Actor

SignIn = Callable[[Role], Client]


@pytest.fixture
def campaigns(db: None) -> dict[str, Campaign]:
    version = factories.make_version()
    return {
        state: factories.make_campaign(version=version, name=f"{state} one", state=state)
        for state in ("draft", "running", "finished", "aborted")
    }


def test_campaigns_are_filtered_by_state_and_part_of_a_name(campaigns: dict[str, Campaign], sign_in: SignIn) -> None:
    client = sign_in(Role.VIEWER)

    def shown(query: str) -> list[str]:
        return [row.campaign.name for row in client.get(f"/campaigns/{query}").context["rows"]]

    assert shown("") == ["aborted one", "finished one", "running one", "draft one"]
    assert shown("?state=finished") == ["finished one"]
    assert shown("?name=RUN") == ["running one"]
    assert shown("?name=one&state=draft") == ["draft one"]
    assert shown("?name=nowhere") == []
    assert "No campaign matches this filter." in client.get("/campaigns/?name=nowhere").content.decode()
    assert "It does not filter." in client.get("/campaigns/?state=bogus").content.decode()
    assert len(shown("?name=%25")) == 0


def test_pages_by_key_keep_the_filter_and_ask_a_fixed_number_of_queries(
    db: None, sign_in: SignIn, monkeypatch: Any
) -> None:
    monkeypatch.setattr(updates, "PAGE", 3)
    version = factories.make_version()
    made = [factories.make_campaign(version=version, name=f"spring {i}").pk for i in range(7)]
    factories.make_campaign(version=version, name="autumn")
    client = sign_in(Role.VIEWER)

    seen, address = [], "/campaigns/?name=spring"
    while address:
        with CaptureQueriesContext(connection) as context:
            page = client.get(address)
        # session, user, campaigns, tallies
        assert len(context) == 4
        seen += [row.campaign.pk for row in page.context["rows"]]
        before = page.context["next_before"]
        assert page.context["query"] == "name=spring"
        address = f"/campaigns/?name=spring&before={before}" if before else ""

    assert seen == sorted(made, reverse=True)


def test_the_list_shows_outcome_start_and_author(fleet: Fleet, sign_in: SignIn) -> None:
    Campaign.objects.filter(pk=fleet.draft.pk).update(
        started_at=None, starts_at=datetime(2100, 7, 1, 20, tzinfo=factories.NOW.tzinfo), time_zone="Europe/Berlin"
    )

    body = sign_in(Role.VIEWER).get("/campaigns/").content.decode()

    assert "1 of 11 confirmed" in body
    assert "Failed 1" in body
    assert "Thu 1 Jul 2100, 22:00 CEST" in body
    assert "operator" in body


def test_history_names_who_paused_and_who_let_it_go_on_and_what_the_gate_did(fleet: Fleet, sign_in: SignIn) -> None:
    campaign, now = fleet.campaign, timezone.now()
    actions.pause(campaign_id=campaign.pk, actor="olga", now=now, reason="rain")
    actions.resume(campaign_id=campaign.pk, actor="anna", now=now)
    with transaction.atomic():
        actions.set_state(
            Campaign.objects.get(pk=campaign.pk), "halted", by=Actor.ENGINE, reason="Wave 1: too many failures."
        )
    Wave.objects.filter(campaign=campaign, index=0).update(state="halted")

    found = history(campaign.pk)

    assert [(one.who, one.act, one.state, one.wave, one.why) for one in found] == [
        (ENGINE, "", "halted", 1, "1 of 40 updates failed, limit 2 %"),
        (ENGINE, "", "halted", None, "Wave 1: too many failures."),
        ("anna", "let it go on", "running", None, ""),
        ("olga", "paused it", "paused", None, "rain"),
    ]
    body = sign_in(Role.VIEWER).get(f"/campaigns/{campaign.pk}/").content.decode()
    for words in ("olga paused it: rain", "anna let it go on", "the engine: Wave 1: too many failures."):
        assert words in body


def test_a_rollback_is_one_line_of_history_under_the_name_of_who_asked_for_it(fleet: Fleet, sign_in: SignIn) -> None:
    client = sign_in(Role.APPROVER)
    client.post(f"/campaigns/{fleet.campaign.pk}/roll-back/")

    [newest, *rest] = history(fleet.campaign.pk)

    assert (newest.act, newest.state) == ("rolled it back", "aborted")
    assert newest.who.startswith("approver-")
    assert rest == []


def test_a_change_that_is_rolled_back_leaves_no_history_and_one_without_a_change_neither(fleet: Fleet) -> None:
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        Campaign.objects.filter(pk=fleet.campaign.pk).update(state="paused")
        raise ZeroDivisionError
    Campaign.objects.filter(pk=fleet.campaign.pk).update(state="running", reason="again")

    assert not CampaignMove.objects.exists()


def test_the_gate_shows_each_metric_with_value_interval_limit_samples_and_rule(fleet: Fleet, sign_in: SignIn) -> None:
    page = sign_in(Role.VIEWER).get(f"/campaigns/{fleet.campaign.pk}/")

    failures, silence = page.context["gate"]["metrics"]
    assert (failures["hits"], failures["of"], failures["share"], failures["limit"]) == (1, 40, 2.5, 2.0)
    assert (silence["hits"], silence["of"], silence["limit"]) == (2, 42, 20.0)
    assert 0 < silence["low"] < silence["share"] < silence["high"] < 20
    body = page.content.decode()
    assert "Halts when the low end of the interval is above 2 %, on at least 20 ended updates." in body
    assert "updates that ended or fell silent" in body


def test_causes_stand_most_frequent_first_with_the_share_so_far(sign_in: SignIn, db: None) -> None:
    nodes = [(factories.make_node(), state) for state in ("failed", "failed", "failed", "silent")]
    campaign = factories.make_campaign(waves=[nodes])

    causes = sign_in(Role.VIEWER).get(f"/campaigns/{campaign.pk}/").context["causes"]

    assert [(row["state"], row["nodes"], row["so_far"], row["width"]) for row in causes] == [
        ("failed", 3, 0.75, 100),
        ("silent", 1, 1.0, pytest.approx(100 / 3)),
    ]
