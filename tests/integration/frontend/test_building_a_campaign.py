"""The builder: rows of waves, a count while one types, the first plan, times in zones. Only saving stores."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.utils import timezone

from devices.models import HardwareProfile
from fleet.accounts.models import Role
from fleet.audit.models import AuditEntry
from tests import factories
from tests.integration.frontend.test_forms_name_the_field_and_the_fix import campaign_fields
from updates.models import Campaign, ModelVersion, NodeUpdate, Patch, Wave

SignIn = Callable[[Role], Client]


@pytest.fixture
def version(db: None) -> ModelVersion:
    """Thirty nodes that it reaches, two that run it, three on a profile that is too small."""
    roomy = factories.make_profile(name="roomy")
    small = factories.make_profile(name="tiny", sram_bytes=64 * 1024, reserved_sram_bytes=32 * 1024)
    firmware = factories.make_firmware()
    version = factories.make_version(profiles=[roomy, small])
    runs = version.images.get().digest
    for profile, digest, count in ((roomy, "", 30), (roomy, runs, 2), (small, "", 3)):
        for _ in range(count):
            factories.make_node(profile=profile, firmware_build=firmware, active_digest=digest)
    return version


def post(client: Client, version: ModelVersion, **changes: Any) -> Any:
    return client.post("/campaigns/new/", {**campaign_fields(version), **changes})


def test_the_first_plan_says_what_the_stored_plan_will_say(version: ModelVersion, sign_in: SignIn) -> None:
    client = sign_in(Role.OPERATOR)

    shown = post(client, version, do="preview", percent=["100"], soak_hours=["0"]).context["plan"]
    post(client, version, do="save", percent=["100"], soak_hours=["0"])

    stored = Campaign.objects.get().plan
    drawn_when_stored = ("members", "patches", "terms", "conflicts")
    assert {k: v for k, v in shown.items() if k not in drawn_when_stored} == {
        **{k: v for k, v in stored.items() if k not in drawn_when_stored},
        "refused": shown["refused"],
    }
    assert [(row["cause"], row["nodes"]) for row in shown["refused"]] == [("already-current", 2), ("does-not-fit", 3)]
    [link] = shown["links"]
    assert (link["link"], link["nodes"], link["bytes"]) == ("nbiot", 30, 30 * 99_240)
    assert link["airtime_s"] > 0 < link["hours"]


def test_the_first_plan_stores_nothing(version: ModelVersion, sign_in: SignIn) -> None:
    client = sign_in(Role.OPERATOR)
    older = factories.make_version(family=version.family)
    holder = factories.make_node(
        profile=HardwareProfile.objects.get(name="roomy"),
        firmware_build=factories.make_firmware(),
        active_digest=older.images.get().digest,
    )
    sequence = "SELECT last_value FROM updates_assignment_sequence"

    def drawn() -> int:
        with connection.cursor() as cursor:
            cursor.execute(sequence)
            return int(cursor.fetchone()[0])

    before = drawn()
    response = post(client, version, do="preview")

    assert response.status_code == 200
    assert response.context["plan"]["reached"] == 31, holder
    for model in (Campaign, Wave, NodeUpdate, Patch, AuditEntry):
        assert not model.objects.exists(), model
    assert drawn() == before


def test_left_out_nodes_are_linked_by_a_filter_that_finds_exactly_them(version: ModelVersion, sign_in: SignIn) -> None:
    client = sign_in(Role.OPERATOR)

    refused = post(client, version, do="preview").context["preview"].refused

    for row, nodes in zip(refused, (2, 3), strict=True):
        found = client.get("/nodes/", {"text": row["filter"]}).context["rows"]
        assert row["exact"]
        assert len(found) == row["nodes"] == nodes
    assert {one.node.profile.name for one in found} == {"tiny"}


def test_a_first_wave_too_small_for_the_gate_is_warned_of_in_builder_and_plan(
    version: ModelVersion, sign_in: SignIn
) -> None:
    client = sign_in(Role.OPERATOR)
    words = "The campaign will hold after waves 1 to 2"

    assert words in post(client, version, do="preview").content.decode()
    assert words not in post(client, version, do="preview", minimum_sample="3").content.decode()
    saved = client.post("/campaigns/new/", campaign_fields(version), follow=True)
    assert words in saved.content.decode()


def test_rows_are_added_and_removed_without_judging_or_losing_what_was_typed(
    version: ModelVersion, sign_in: SignIn
) -> None:
    client = sign_in(Role.OPERATOR)

    def rows(response: Any) -> list[tuple[str, str]]:
        return [(row.percent, row.soak_hours) for row in response.context["rows"]]

    added = post(client, version, do="add", name="half typ", percent=["x", "100"], soak_hours=["72", "48"])
    assert rows(added) == [("x", "72"), ("", "48"), ("100", "48")]
    assert 'value="half typ"' in added.content.decode()
    assert 'class="error"' not in added.content.decode()

    removed = post(client, version, do="remove-0", percent=["5", "20", "100"], soak_hours=["1", "2", "3"])
    assert rows(removed) == [("20", "2"), ("100", "3")]
    assert rows(post(client, version, do="remove-0", percent=["100"], soak_hours=["3"])) == [("100", "3")]
    assert rows(post(client, version, do="remove-99", percent=["100"], soak_hours=["3"])) == [("100", "3")]
    assert not Campaign.objects.exists()


@pytest.mark.parametrize(
    ("percents", "row", "words"),
    [
        (["ten", "100"], 0, "“ten” is no percentage"),
        (["", "100"], 0, "is no percentage"),
        (["nan", "100"], 0, "is no percentage"),
        (["0", "100"], 0, "“0” is no percentage"),
        (["50", "10", "100"], 1, "10 % does not rise above the 50 % before it"),
        (["10", "10", "100"], 1, "10 % does not rise above the 10 %"),
        (["10", "50"], 1, "The last wave ends at 50 %. Write 100"),
        (["10", "150"], 1, "“150” is no percentage"),
    ],
)
def test_a_wave_that_cannot_be_is_refused_at_its_row(
    version: ModelVersion, sign_in: SignIn, percents: list[str], row: int, words: str
) -> None:
    client = sign_in(Role.OPERATOR)

    for do in ("preview", "save"):
        response = post(client, version, do=do, percent=percents, soak_hours=["1"] * len(percents))

        assert response.status_code == 400
        assert words in " ".join(response.context["rows"][row].errors)
    assert not Campaign.objects.exists()


@pytest.mark.parametrize("soak", ["", "-1", "inf", "99999"])
def test_a_soak_that_cannot_be_is_refused(version: ModelVersion, sign_in: SignIn, soak: str) -> None:
    response = post(sign_in(Role.OPERATOR), version, percent=["100"], soak_hours=[soak])

    assert response.status_code == 400
    assert "is no soak time" in response.content.decode()


def test_no_wave_at_all_is_refused(version: ModelVersion, sign_in: SignIn) -> None:
    assert post(sign_in(Role.OPERATOR), version, percent=[], soak_hours=[]).status_code == 400
    assert not Campaign.objects.exists()


def test_a_start_in_berlin_is_stored_as_utc_and_shown_with_its_zone(version: ModelVersion, sign_in: SignIn) -> None:
    client = sign_in(Role.OPERATOR)

    response = client.post(
        "/campaigns/new/",
        {**campaign_fields(version), "starts_at": "2100-07-01T22:00", "time_zone": "Europe/Berlin"},
        follow=True,
    )

    campaign = Campaign.objects.get()
    assert campaign.starts_at == datetime(2100, 7, 1, 20, 0, tzinfo=UTC)
    assert campaign.time_zone == "Europe/Berlin"
    assert "Thu 1 Jul 2100, 22:00 CEST" in response.content.decode()


@pytest.mark.parametrize(
    ("start", "zone", "words"),
    [
        ("2027-03-28T02:30", "Europe/Berlin", "02:30 does not exist on 28 March 2027"),
        ("2027-10-31T02:30", "Europe/Berlin", "02:30 comes twice on 31 October 2027"),
        ("2001-01-01T00:00", "UTC", "has passed. Choose a later time"),
        ("soon", "UTC", "“soon” is no date and time"),
        ("2100-01-01T00:00+01:00", "UTC", "names a zone"),
        ("0001-01-01T00:00", "Europe/Berlin", ""),
        ("2100-01-01T00:00", "Mars/Olympus", "Select a valid choice"),
    ],
)
def test_a_start_that_cannot_be_is_refused_with_what_to_write(
    version: ModelVersion, sign_in: SignIn, start: str, zone: str, words: str
) -> None:
    response = post(sign_in(Role.OPERATOR), version, starts_at=start, time_zone=zone)

    assert response.status_code == 400
    assert words in response.content.decode()
    assert not Campaign.objects.exists()


def test_a_filter_is_counted_while_it_is_typed_and_says_where_it_cannot_be_read(
    version: ModelVersion, sign_in: SignIn
) -> None:
    client = sign_in(Role.OPERATOR)

    def answer(text: str) -> str:
        response = client.get("/campaigns/new/count/", {"node_filter": text})
        assert response.status_code == 200
        return response.content.decode()

    assert "35 nodes match: every node." in answer("")
    assert "3 nodes match." in answer("profile:tiny")
    assert "<b>Character 14:</b>" in answer("profile:tiny colour:red")


def test_a_filter_that_matches_nothing_or_cannot_be_read_is_refused(version: ModelVersion, sign_in: SignIn) -> None:
    client = sign_in(Role.OPERATOR)

    nothing = post(client, version, do="preview", node_filter="site:nowhere").content.decode()
    assert "No node matches &#x27;site:nowhere&#x27;. Widen the filter." in nothing
    assert (
        "Character 1: field colour is unknown"
        in post(client, version, do="preview", node_filter="colour:red").content.decode()
    )


def test_the_plan_page_dates_its_waves_from_the_start_in_the_campaigns_zone(sign_in: SignIn, db: None) -> None:
    start = timezone.now() + timedelta(days=30)
    campaign = factories.make_campaign(
        state="draft",
        started_at=None,
        starts_at=start,
        time_zone="Asia/Tokyo",
        waves=[[(factories.make_node(), "planned")], [(factories.make_node(), "planned")]],
    )

    calendar = sign_in(Role.VIEWER).get(f"/campaigns/{campaign.pk}/plan/").context["calendar"]

    first, second = (bar.dates for bar in calendar.bars)
    assert (calendar.zone, first.opens) == ("Asia/Tokyo", start)
    assert second.opens - first.opens == timedelta(hours=48.4)


def test_a_viewer_neither_builds_nor_sees_a_first_plan(version: ModelVersion, sign_in: SignIn) -> None:
    client = sign_in(Role.VIEWER)

    for do in ("preview", "save", "add"):
        assert post(client, version, do=do).status_code == 403
    assert not Campaign.objects.exists()
