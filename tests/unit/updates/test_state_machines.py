"""The state machines as data: complete, and the same in code, documents and database."""

from __future__ import annotations

from pathlib import Path

import pytest

from updates.campaigns.retries import FIRST_S, LONGEST_S, backoff_s
from updates.causes import RETRYABLE, SENTENCES
from updates.state_pictures import documents
from updates.states import (
    CAMPAIGN,
    MACHINES,
    NODE_UPDATE,
    OPEN_STATES,
    TERMINAL_STATES,
    WAVE,
    Actor,
    CampaignState,
    Machine,
    NodeUpdateState,
    WaveState,
)

DOCS = Path(__file__).resolve().parents[3] / "docs"
S = NodeUpdateState


@pytest.mark.parametrize(
    ("machine", "states"), [(CAMPAIGN, CampaignState), (WAVE, WaveState), (NODE_UPDATE, NodeUpdateState)]
)
def test_every_state_stands_in_the_picture_once_and_can_be_reached(
    machine: Machine, states: type[CampaignState]
) -> None:
    shown = [str(state) for column in machine.columns for state in column]
    assert sorted(shown) == sorted(states.values)
    reached = {shown[0]}
    for _ in shown:
        reached |= {str(rule.target) for rule in machine.rules if set(map(str, rule.sources)) & reached}
    assert reached == set(states.values)


def test_every_node_update_is_planned_open_or_ended() -> None:
    assert {S.PLANNED, *OPEN_STATES, *TERMINAL_STATES} == set(S)


def test_every_open_state_can_fall_silent_and_nothing_else_can() -> None:
    rules = [rule for rule in NODE_UPDATE.rules if rule.target == S.SILENT]
    assert {source for rule in rules for source in rule.sources} == set(OPEN_STATES)


def test_a_report_reopens_silence_and_no_other_end() -> None:
    heard = [rule for rule in NODE_UPDATE.rules if Actor.NODE in rule.by]
    assert {source for rule in heard for source in rule.sources} & set(TERMINAL_STATES) == {S.SILENT}


def test_only_the_engine_offers_and_only_nodes_and_links_confirm() -> None:
    assert NODE_UPDATE.sources(S.OFFERED, by=Actor.ENGINE) == [S.PLANNED]
    for actor in (Actor.NODE, Actor.LINK, Actor.OPERATOR):
        with pytest.raises(ValueError, match="no rule lets the"):
            NODE_UPDATE.sources(S.OFFERED, by=actor)
    with pytest.raises(ValueError, match="no rule lets the engine move to confirmed"):
        NODE_UPDATE.sources(S.CONFIRMED, by=Actor.ENGINE)


def test_every_transition_of_a_person_names_the_role_that_it_takes_and_no_other_does() -> None:
    for rule in (rule for machine in MACHINES for rule in machine.rules):
        assert (rule.role is not None) == (Actor.OPERATOR in rule.by), rule


def test_a_cause_that_no_rule_names_is_refused() -> None:
    with pytest.raises(ValueError, match="cause 'bored'"):
        NODE_UPDATE.sources(S.CANCELLED, by=Actor.OPERATOR, cause="bored")


def test_no_person_can_bring_an_ended_campaign_back() -> None:
    assert CAMPAIGN.ends() == [CampaignState.FINISHED, CampaignState.ABORTED]


def test_every_cause_of_a_rule_and_every_retryable_one_has_a_sentence() -> None:
    named = {cause for machine in MACHINES for rule in machine.rules for cause in rule.causes or ()}
    assert named | RETRYABLE <= set(SENTENCES)


@pytest.mark.parametrize("name", sorted(documents()))
def test_the_documents_say_what_the_code_says(name: str) -> None:
    assert (DOCS / name).read_text() == documents()[name], "run manage.py state_machines"


def test_attempts_come_later_each_time_but_within_a_day_and_a_half() -> None:
    assert [backoff_s(attempt, jitter=0.5) for attempt in (1, 2, 3)] == [FIRST_S, 2 * FIRST_S, 4 * FIRST_S]
    assert backoff_s(50, jitter=1) == 1.5 * LONGEST_S
    assert backoff_s(1, jitter=0) == 0.5 * FIRST_S
