"""The pages in Debian's Chromium: nothing overflows, nothing breaks the content security policy, Halt stays in view.

SCREENSHOTS=<folder> keeps a picture of each page, width and theme.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from fleet.accounts.models import Role
from tests import factories
from tests.integration.frontend.conftest import Fleet, fleet  # noqa: F401 - a fixture
from updates.models import Campaign

pytestmark = [
    pytest.mark.browser,
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(shutil.which("chromium") is None, reason="Debian's chromium is not installed"),
]
SIZES = [(1280, 900), (390, 844)]
THEMES = ["light", "dark"]


@pytest.fixture
def browser(monkeypatch: pytest.MonkeyPatch) -> Iterator[Browser]:
    # Playwright's synchronous interface runs an event loop in this thread; Django would refuse its database for that.
    monkeypatch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "true")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        )
        yield browser
        browser.close()


def signed_in_page(browser: Browser, address: str, role: Role, width: int, height: int, theme: str) -> Page:
    user = factories.make_user(role)
    page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=theme)  # type: ignore[arg-type]
    page.goto(f"{address}/login/")
    page.fill("#id_username", user.username)
    page.fill("#id_password", factories.PASSWORD)
    page.click("button[type=submit]")
    page.wait_for_selector("#verdict")
    return page


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize(("width", "height"), SIZES)
def test_no_page_overflows_or_breaks_the_policy(
    fleet: Fleet,  # noqa: F811
    live_server: object,
    browser: Browser,
    width: int,
    height: int,
    theme: str,
) -> None:
    address = live_server.url  # type: ignore[attr-defined]
    addresses = {
        "fleet": "/",
        "nodes": "/nodes/",
        "node-skipped": f"/nodes/{fleet.nodes['skipped'].pk}/",
        "node-confirmed": f"/nodes/{fleet.nodes['confirmed'].pk}/",
        "node-transferring": f"/nodes/{fleet.nodes['transferring'].pk}/",
        "models": "/models/",
        "version": f"/models/{fleet.version.pk}/",
        "version-refused": f"/models/{fleet.refused.pk}/",
        "version-building": f"/models/{fleet.building.pk}/",
        "upload": "/models/upload/",
        "campaigns": "/campaigns/",
        "campaign-new": "/campaigns/new/",
        "campaign": f"/campaigns/{fleet.campaign.pk}/",
        "plan": f"/campaigns/{fleet.draft.pk}/plan/",
        "roll-back": f"/campaigns/{fleet.campaign.pk}/roll-back/",
    }
    page = signed_in_page(browser, address, Role.APPROVER, width, height, theme)
    errors: list[str] = []
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    for name, path in addresses.items():
        page.goto(address + path)
        page.wait_for_load_state("load")

        overflow = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        if folder := os.environ.get("SCREENSHOTS"):
            Path(folder).mkdir(parents=True, exist_ok=True)
            page.screenshot(path=f"{folder}/{name}-{width}-{theme}.png", full_page=True)
        assert overflow <= 0, f"{name} is {overflow} px too wide"
        assert errors == [], f"{name}: {errors}"


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_halt_stays_in_view_and_halts_with_one_click(
    fleet: Fleet,  # noqa: F811
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
    fleet: Fleet,  # noqa: F811
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
