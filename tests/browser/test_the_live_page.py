"""The live page of a campaign in Chromium: Halt stays in view, and numbers follow without a reload."""

from __future__ import annotations

import os

import pytest
from playwright.sync_api import Browser

from fleet.accounts.models import Role
from tests.browser.visitor import SIZES, signed_in_page
from tests.integration.frontend.conftest import Fleet
from updates.models import Campaign

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_halt_stays_in_view_and_halts_with_one_click(
    fleet: Fleet,
    live_server: object,
    browser: Browser,
    width: int,
    height: int,
) -> None:
    page = signed_in_page(browser, live_server.url, Role.OPERATOR, width, height, "light")  # type: ignore[attr-defined]
    page.goto(f"{live_server.url}/campaigns/{fleet.campaign.pk}/")  # type: ignore[attr-defined]
    page.evaluate("window.scrollTo(0, document.body.scrollHeight)")
    box = page.locator("#halt").bounding_box()
    if folder := os.environ.get("SCREENSHOTS"):
        page.screenshot(path=f"{folder}/halt-scrolled-{width}.png")
    assert box is not None
    assert 0 <= box["y"] <= height - box["height"]

    page.click("#halt")
    page.wait_for_selector("text=Paused")

    assert Campaign.objects.get(pk=fleet.campaign.pk).state == "paused"


def test_the_live_page_follows_the_tallies_without_a_reload_and_keeps_an_open_table_open(
    fleet: Fleet,
    live_server: object,
    browser: Browser,
) -> None:
    page = signed_in_page(browser, live_server.url, Role.VIEWER, 1280, 900, "light")  # type: ignore[attr-defined]
    page.goto(f"{live_server.url}/campaigns/{fleet.campaign.pk}/")  # type: ignore[attr-defined]
    page.click("#lanes-table summary")
    wave = fleet.campaign.waves.get(index=0)

    wave.tallies.filter(state="confirmed").update(count=777)
    page.wait_for_selector("#verdict:has-text('777 of')", timeout=8000)

    assert page.evaluate("document.getElementById('lanes-table').open")
    assert "777" in page.inner_text("#live-campaign .kpis")
