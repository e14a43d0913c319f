from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from django.test import Client

from fleet.accounts.models import Role
from tests.integration.frontend.conftest import HOSTILE, Fleet

SignIn = Callable[[Role], Client]


def pages(fleet: Fleet) -> list[str]:
    return [
        "/",
        "/nodes/",
        "/nodes/?text=endpoint:node* profile:stm32l4 site:plant-3",
        f"/nodes/?campaign={fleet.campaign.pk}&state=failed",
        "/nodes/?silent=on",
        "/nodes/?state=bogus&campaign=x",
        "/nodes/?sort=-seen",
        "/nodes/import/template/",
        "/nodes/count/",
        *(f"/nodes/{node.pk}/" for node in fleet.nodes.values()),
        "/hardware/",
        "/nodes/unknown/",
        "/models/",
        f"/models/compare/?a={fleet.version.family.versions.get(name='1.0.0').pk}&b={fleet.version.pk}",
        "/patches/",
        "/patches/?state=bogus&family=x",
        *(f"/models/{version.pk}/" for version in (fleet.version, fleet.refused, fleet.building)),
        "/campaigns/",
        f"/campaigns/{fleet.campaign.pk}/",
        f"/campaigns/{fleet.campaign.pk}/plan/",
        f"/campaigns/{fleet.draft.pk}/plan/",
    ]


def operator_pages(fleet: Fleet) -> list[str]:
    return [
        "/nodes/import/",
        "/nodes/new/?endpoint=press-1&link=nbiot",
        "/hardware/profiles/new/",
        "/hardware/firmware-builds/new/",
        "/nodes/labels/?which=all",
        "/models/upload/",
        "/campaigns/new/",
        f"/campaigns/{fleet.campaign.pk}/abort/",
    ]


def approver_pages(fleet: Fleet) -> list[str]:
    live = [f"/campaigns/{fleet.campaign.pk}/{action}/" for action in ("resume", "roll-back")]
    return live + [f"/campaigns/{fleet.draft.pk}/{action}/" for action in ("approve", "launch", "start")]


@pytest.mark.parametrize("role", list(Role))
def test_every_page_renders_and_holds_to_the_content_security_policy(fleet: Fleet, sign_in: SignIn, role: Role) -> None:
    client = sign_in(role)
    allowed = pages(fleet)
    if role != Role.VIEWER:
        allowed += operator_pages(fleet)
    if role in (Role.APPROVER, Role.ADMIN):
        allowed += approver_pages(fleet)

    for address in allowed:
        response = client.get(address)
        body = response.content.decode()

        assert response.status_code == 200, address
        assert "default-src 'none'" in response["Content-Security-Policy"]
        assert " style=" not in body, address
        assert "<style" not in body, address
        assert not re.search(r"<script(?![^>]* src=)", body), address
        assert not re.search(r"\son[a-z]+=", body), address
        assert HOSTILE not in body, address


def test_polls_answer_with_the_part_of_the_page_alone(fleet: Fleet, sign_in: SignIn) -> None:
    client = sign_in(Role.VIEWER)

    for address in (
        "/",
        f"/models/{fleet.building.pk}/",
        f"/campaigns/{fleet.campaign.pk}/?state=running",
    ):
        response = client.get(address, headers={"HX-Request": "true"})

        assert response.status_code == 200
        assert "<html" not in response.content.decode()
        assert "HX-Refresh" not in response


def test_a_poll_reloads_the_page_when_the_campaign_is_in_another_state(fleet: Fleet, sign_in: SignIn) -> None:
    client = sign_in(Role.VIEWER)
    address = f"/campaigns/{fleet.campaign.pk}/?state=running"
    fleet.campaign.state = "halted"
    fleet.campaign.save()

    response = client.get(address, headers={"HX-Request": "true"})

    assert response["HX-Refresh"] == "true"


def test_a_poll_reloads_the_version_page_when_the_build_has_ended(fleet: Fleet, sign_in: SignIn) -> None:
    client = sign_in(Role.VIEWER)

    response = client.get(f"/models/{fleet.version.pk}/", headers={"HX-Request": "true"})

    assert response["HX-Refresh"] == "true"


def test_a_poll_after_the_session_has_ended_takes_the_whole_page_to_the_login(client: Client, db: None) -> None:
    response = client.get("/", headers={"HX-Request": "true"})

    assert response["HX-Redirect"] == "/login/"


def test_without_a_login_every_page_leads_to_the_login(fleet: Fleet, client: Client) -> None:
    for address in pages(fleet) + operator_pages(fleet) + approver_pages(fleet):
        response = client.get(address)

        assert response.status_code == 302, address
        assert response["Location"].startswith("/login/?next="), address


def test_what_does_not_exist_is_a_404_that_says_so(fleet: Fleet, sign_in: SignIn) -> None:
    client = sign_in(Role.APPROVER)

    for address in (
        *("/nodes/999999/", "/models/999999/", "/campaigns/999999/", "/campaigns/?before=x", "/models/?before=-1"),
        f"/campaigns/{fleet.campaign.pk}/explode/",
    ):
        response = client.get(address)

        assert response.status_code == 404, address
        assert "nothing at this address" in response.content.decode()


def test_the_time_scale_is_on_every_screen_where_it_is_not_one(fleet: Fleet, client: Client, settings: object) -> None:
    settings.TIME_SCALE = 60.0  # type: ignore[attr-defined]

    login = client.get("/login/").content.decode()

    assert ">60×<" in login
