"""The admin shows what the product writes and changes none of it: campaigns change through their services alone."""

from __future__ import annotations

import pytest
from django.apps import apps
from django.contrib import admin
from django.test import Client
from django.urls import reverse

from fleet.accounts.models import Role
from tests import factories
from updates.models import Campaign

pytestmark = pytest.mark.django_db
NAMES = [
    model._meta.model_name for model in apps.get_app_config("updates").get_models() if model in admin.site._registry
]


@pytest.fixture
def signed_in(client: Client) -> Client:
    client.force_login(factories.make_user(Role.ADMIN, is_staff=True, is_superuser=True))
    return client


@pytest.fixture
def campaign() -> Campaign:
    profile = factories.make_profile()
    version = factories.make_version(profiles=[profile])
    return factories.make_campaign(version=version, waves=[[(factories.make_node(profile=profile), "confirmed")]])


def test_campaigns_and_versions_are_there() -> None:
    assert {"campaign", "modelversion", "nodeupdate", "updateevent"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_list_shows_and_adds_nothing(signed_in: Client, campaign: Campaign, name: str) -> None:
    assert signed_in.get(reverse(f"admin:updates_{name}_changelist")).status_code == 200
    assert signed_in.post(reverse(f"admin:updates_{name}_add"), {}).status_code == 403


def test_a_campaign_is_shown_without_its_revert_secret_and_refuses_a_change(
    signed_in: Client, campaign: Campaign
) -> None:
    address = reverse("admin:updates_campaign_change", args=[campaign.pk])
    page = signed_in.get(address)
    assert page.status_code == 200
    assert campaign.name in page.content.decode()
    assert "preimage" not in page.content.decode()
    assert signed_in.post(address, {"state": "ended"}).status_code == 403
    assert (
        signed_in.post(reverse("admin:updates_campaign_delete", args=[campaign.pk]), {"post": "yes"}).status_code == 403
    )
