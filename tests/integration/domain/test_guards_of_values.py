"""What the database refuses whoever writes it: values that no code may store."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import psycopg
import pytest
from django.apps import apps
from django.db import IntegrityError, connection
from django.db.models import CheckConstraint, F, Model

from fleet.audit.models import AuditEntry, record
from tests.integration.domain import factories as make
from tests.integration.domain.race import on_another_connection, race
from updates.models import Campaign, Tally

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
pytestmark = pytest.mark.django_db(transaction=True)


def change(row: Model, **values: object) -> Callable[[], int]:
    return lambda: type(row)._default_manager.filter(pk=row.pk).update(**values)


# Each entry makes a good row and returns the change that its guard must refuse.
CHECKS: dict[str, Callable[[], Callable[[], int]]] = {
    "profile_sram_left": lambda: change(make.profile(), reserved_sram_bytes=F("sram_bytes")),
    "profile_arena_fraction": lambda: change(make.profile(), arena_fraction=1.01),
    "profile_sizes_positive": lambda: change(make.profile(), slot_bytes=0),
    "node_endpoint_not_empty": lambda: change(make.node(), endpoint=""),
    "node_digests_are_hex": lambda: change(make.node(), active_digest="DEADBEEF"),
    "known_image_prefix_fits": lambda: change(make.known_image(), prefix="ffffffff"),
    "delivery_is_bundle_or_command": lambda: change(make.delivery(), command=None),
    "delivery_state_is_known": lambda: change(make.delivery(), state="lost"),
    "network_server_encoding_is_known": lambda: change(make.network_server(), event_encoding="xml"),
    "network_event_kind_is_known": lambda: change(make.network_event(), kind="lost"),
    "session_stage_is_known": lambda: change(make.fragment_session(), stage="lost"),
    "session_numbers_from_one": lambda: change(make.fragment_session(), next_number=0),
    "version_state_is_known": lambda: change(make.version(), state="lost"),
    "version_refusal_has_a_reason": lambda: change(make.version(), state="refused"),
    "version_judged_again_is_ready": lambda: change(make.version(state="uploaded"), judge_again=True),
    "saved_view_has_a_name": lambda: change(make.saved_view(), name=""),
    "patch_state_is_known": lambda: change(make.patch(), state="lost"),
    "patch_between_two_images": lambda: change(make.patch(), base=F("target")),
    "patch_decoder_is_known": lambda: change(make.patch(), decoder="none"),
    "patch_ready_has_bytes": lambda: change(make.patch(), state="ready"),
    "signing_key_active_or_retired": lambda: change(make.signing_key(active=True), retired_at=NOON),
    "campaign_state_is_known": lambda: change(make.campaign(), state="lost"),
    "campaign_has_an_aim": lambda: change(make.campaign(), version=None),
    "campaign_runs_as_approved": lambda: change(make.campaign(plan_hash="planned"), state="running"),
    "campaign_ends_after_its_start": lambda: change(make.campaign(), starts_at=NOON, ends_at=NOON),
    "campaign_priority_in_range": lambda: change(make.campaign(), priority=101),
    "campaign_tries_once_at_least": lambda: change(make.campaign(), maximum_attempts=0),
    "wave_percent_in_range": lambda: change(make.wave(), percent=100.5),
    "wave_state_is_known": lambda: change(make.wave(), state="lost"),
    "node_update_state_is_known": lambda: change(make.node_update(), state="lost"),
    "node_update_end_has_a_cause": lambda: change(make.node_update(), state="failed"),
    "tally_not_negative": lambda: change(Tally.objects.create(wave=make.wave(), state="planned"), count=-1),
}


@pytest.mark.parametrize("guard", CHECKS)
def test_another_connection_cannot_break(guard: str) -> None:
    outcome = on_another_connection(CHECKS[guard]())
    assert isinstance(outcome.error, IntegrityError)
    assert f'"{guard}"' in str(outcome.error)


def test_each_check_of_the_models_is_tried_here() -> None:
    models = [*apps.get_app_config("devices").get_models(), *apps.get_app_config("updates").get_models()]
    named = {c.name for model in models for c in model._meta.constraints if isinstance(c, CheckConstraint)}
    assert named == set(CHECKS)


def test_two_that_take_the_last_one_never_make_a_tally_negative() -> None:
    tally = Tally.objects.create(wave=make.wave(), state="planned", count=1)
    take = change(tally, count=F("count") - 1)
    outcome = race(take, take)
    assert outcome.waited
    assert isinstance(outcome.error, IntegrityError)
    tally.refresh_from_db()
    assert tally.count == 0


def test_a_campaign_cannot_start_while_its_plan_changes() -> None:
    campaign = make.campaign(plan_hash="approved", approved_hash="approved")
    outcome = race(change(campaign, plan_hash="changed"), change(campaign, state="running"))
    assert outcome.waited
    assert "campaign_runs_as_approved" in str(outcome.error)
    assert Campaign.objects.get().state == "draft"


def test_a_plan_cannot_change_while_its_campaign_starts() -> None:
    campaign = make.campaign(plan_hash="approved", approved_hash="approved")
    outcome = race(change(campaign, state="running"), change(campaign, plan_hash="changed"))
    assert outcome.waited
    assert "campaign_runs_as_approved" in str(outcome.error)
    assert Campaign.objects.get().plan_hash == "approved"


@pytest.mark.parametrize(
    "statement",
    ["UPDATE audit_auditentry SET actor = 'nobody'", "DELETE FROM audit_auditentry"],
    ids=["update", "delete"],
)
def test_the_audit_log_is_append_only_for_every_client(statement: str) -> None:
    record(actor="ann", action="start", subject=make.campaign())
    with (
        psycopg.connect(**connection.get_connection_params()) as other,
        pytest.raises(psycopg.errors.RaiseException, match="append-only"),
    ):
        other.execute(statement)
    assert AuditEntry.objects.get().actor == "ann"
