"""What a campaign binds itself to is entered in the builder and read on its plan."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from django.test import Client

from fleet.accounts.models import Role
from tests import factories
from tests.integration.frontend.test_forms_name_the_field_and_the_fix import campaign_fields
from tests.integration.updates.campaigns.conftest import books_are_right  # noqa: F401
from updates.models import Campaign, ModelVersion

pytestmark = pytest.mark.django_db
SignIn = Callable[[Role], Client]

TYPED = {
    "ends_at": "2199-03-01T12:00",
    "time_zone": "Europe/Berlin",
    "end_behaviour": "cancel",
    "membership": "dynamic",
    "priority": "70",
    "transfer_windows": "22:00-05:00\r\nSA-MO 01:00 - 03:00\nFREQ=WEEKLY;INTERVAL=2;BYDAY=MO 01:00-04:00 from 2026-01-05",
    "activation_windows": "mo,we 05:00-06:00",
    "blackout": "2026-12-24 to 2027-01-01\n2027-05-01",
    "limit_site": "4",
    "limit_labels": "cell=20; line=2",
    "offer_timeout_h": "12",
    "maximum_attempts": "5",
    "full_image": "yes",
}


@pytest.fixture
def version(db: None) -> ModelVersion:
    profile, firmware = factories.make_profile(), factories.make_firmware()
    version = factories.make_version(profiles=[profile])
    for _ in range(3):
        factories.make_node(profile=profile, firmware_build=firmware)
    return version


def post(client: Client, version: ModelVersion, **changes: Any) -> Any:
    return client.post("/campaigns/new/", campaign_fields(version) | changes)


def test_all_terms_can_be_typed(version: ModelVersion, sign_in: SignIn) -> None:
    assert post(sign_in(Role.OPERATOR), version, **TYPED).status_code == 302
    campaign = Campaign.objects.get()
    assert campaign.ends_at == datetime(2199, 3, 1, 11, tzinfo=UTC)
    assert (campaign.end_behaviour, campaign.membership, campaign.priority) == ("cancel", "dynamic", 70)
    assert (campaign.offer_timeout_s, campaign.progress_timeout_s, campaign.maximum_attempts) == (43_200, 172_800, 5)
    assert campaign.limits == {"site": 4, "label.cell": 20, "label.line": 2}
    assert campaign.windows == {
        "transfer": [
            {"start": "22:00", "end": "05:00"},
            {"rrule": "FREQ=WEEKLY;BYDAY=SA,SU,MO", "start": "01:00", "end": "03:00"},
            {
                "rrule": "FREQ=WEEKLY;INTERVAL=2;BYDAY=MO",
                "from": "2026-01-05",
                "start": "01:00",
                "end": "04:00",
            },
        ],
        "activation": [{"rrule": "FREQ=WEEKLY;BYDAY=MO,WE", "start": "05:00", "end": "06:00"}],
        "blackout": [{"from": "2026-12-24", "to": "2027-01-01"}, {"from": "2027-05-01", "to": "2027-05-01"}],
    }


def test_fields_that_are_left_empty_have_the_defaults(version: ModelVersion, sign_in: SignIn) -> None:
    post(sign_in(Role.OPERATOR), version)
    campaign = Campaign.objects.get()
    assert (campaign.limits, campaign.windows, campaign.priority, campaign.membership) == ({}, {}, 50, "fixed")
    assert (campaign.full_image_allowed, campaign.maximum_attempts, campaign.ends_at) == (True, 3, None)


@pytest.mark.parametrize(
    ("field", "typed", "says"),
    [
        ("transfer_windows", "nightly", "“nightly” is no window. Write 22:00-05:00"),
        ("transfer_windows", "MO-XX 22:00-05:00", "“MO-XX” is no day"),
        ("transfer_windows", "22:00-22:00", "is 22:00 like the start"),
        ("activation_windows", "FREQ=HOURLY 22:00-05:00", "FREQ must be one of"),
        ("blackout", "24.12.2026", "give a date such as 2026-12-24"),
        ("limit_labels", "cell", "write key=value"),
        ("limit_labels", "cell=many", "“many” is no number of updates. Write cell=20."),
        ("limit_labels", "cell=0", "limits.label.cell: is 0"),
        ("limit_site", "0", "greater than or equal to 1"),
        ("ends_at", "2020-01-01T12:00", "has passed"),
    ],
)
@pytest.mark.parametrize("do", ["preview", "save"])
def test_what_makes_no_sense_is_told_at_its_field_and_stores_nothing(
    version: ModelVersion, sign_in: SignIn, do: str, field: str, typed: str, says: str
) -> None:
    response = post(sign_in(Role.OPERATOR), version, **{field: typed, "do": do})
    assert response.status_code == 400
    assert says in " ".join(response.context["form"].errors[field])
    assert not Campaign.objects.exists()


def test_the_plan_tells_an_approver_the_terms_and_the_other_campaigns_on_its_nodes(
    version: ModelVersion, sign_in: SignIn
) -> None:
    client = sign_in(Role.OPERATOR)
    post(client, version, name="earlier")
    Campaign.objects.update(state="paused", approved_hash=Campaign.objects.get().plan_hash)
    page = client.get(post(client, version, **TYPED).url).content.decode()
    for words in (
        "Sat, Sun, Mon 01:00 to 03:00",
        "every day 22:00 to 05:00",
        "2026-12-24 to 2027-01-01",
        "4 at a site; 20 at each cell; 2 at each line",
        "Fri 1 Mar 2199, 12:00 CET; withdraw what is open",
        "70 of 100",
        "an offer after 12 h",
        "earlier",
        "It stands still: this one takes over what it has on the air",
    ):
        assert words in page, words
