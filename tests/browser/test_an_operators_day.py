"""Questions that an operator brings to the dashboard, answered by clicks or by keys from the fleet page."""

from __future__ import annotations

import pytest
from django.utils import timezone
from playwright.sync_api import Page, expect

from devices.models import Node
from fleet.accounts.models import Role
from tests.browser.visitor import Visitor
from tests.integration.frontend.conftest import Fleet
from tests.integration.updates.campaigns.scene import Scene
from updates.models import Campaign

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


def test_why_a_node_is_not_updated_is_three_clicks_from_the_fleet_page(fleet: Fleet, visitor: Visitor) -> None:
    rejected = fleet.nodes["rejected"]
    page = visitor.page(Role.VIEWER)
    page.goto("/")
    page.locator("#fleet-body").get_by_role("link", name="1 rejected").click()
    expect(page.get_by_role("link", name=fleet.nodes["failed"].endpoint)).to_have_count(0)
    page.get_by_role("link", name=rejected.endpoint).click()

    expect(page.locator(".verdict h1")).to_contain_text("rejected")
    expect(page.locator(".verdict")).to_contain_text("base")
    assert visitor.errors == []


def test_one_click_rolls_a_campaign_back_with_its_numbers_on_the_page(visitor: Visitor) -> None:
    scene = Scene(nodes=5)
    scene.now = timezone.now()
    campaign = scene.tick(scene.campaign(), times=2)
    for update in scene.open_updates(campaign)[:4]:
        scene.confirm(update)
    scene.drain()
    # Whether the previous slot is intact is what nodes said last.
    Node.objects.filter(active_digest=scene.new.digest).update(standby_digest=scene.old.digest[:8])
    page = visitor.page(Role.APPROVER)
    page.goto(f"/campaigns/{campaign.pk}/")
    page.click("text=Roll back…")
    said = page.inner_text("main")
    assert "nodes run this version or may switch to it soon" in said
    assert "4 nodes go back by a command of a few bytes" in said

    page.get_by_role("button", name="Roll back").click()
    expect(page.locator("#live-campaign")).to_be_visible()

    back = Campaign.objects.get(reverts=campaign)
    assert page.url.endswith(f"/campaigns/{back.pk}/")
    campaign.refresh_from_db()
    assert campaign.state not in ("running", "scheduled")


def test_a_viewer_sees_everything_and_can_change_nothing(fleet: Fleet, visitor: Visitor) -> None:
    page = visitor.page(Role.VIEWER)
    address = f"/campaigns/{fleet.campaign.pk}/"
    page.goto(address)
    expect(page.locator("#live-campaign")).to_be_visible()
    expect(page.locator("header.head .actions :is(a, button)")).to_have_count(0)
    token = page.locator("input[name=csrfmiddlewaretoken]").first.input_value()

    for action in ("halt", "abort", "roll-back"):
        answer = page.request.post(
            f"{address}{action}/",
            form={"csrfmiddlewaretoken": token},
            headers={"Referer": visitor.address},
            max_redirects=0,
        )
        assert answer.status == 403, action
        assert "CSRF" not in answer.text()
    fleet.campaign.refresh_from_db()
    assert fleet.campaign.state == "running"


def focused(page: Page) -> str:
    return str(page.evaluate("document.activeElement.innerText || document.activeElement.getAttribute('aria-label')"))


def tab_to(page: Page, words: str) -> None:
    """Tab until the element that begins with `words` has the focus; each stop on the way must be seen."""
    for _ in range(80):
        page.keyboard.press("Tab")
        seen = page.evaluate(
            "(() => { const s = getComputedStyle(document.activeElement);"
            " return s.outlineStyle !== 'none' || s.boxShadow !== 'none' })()"
        )
        assert seen, f"the focus on {focused(page)!r} is not visible"
        if focused(page).strip().startswith(words):
            return
    raise AssertionError(f"Tab never came to {words!r}")


def test_a_campaign_is_found_and_halted_with_the_keyboard_alone(fleet: Fleet, visitor: Visitor) -> None:
    page = visitor.page(Role.OPERATOR)
    page.goto("/campaigns/")
    page.keyboard.press("Tab")
    assert focused(page) == "Skip to content"
    page.keyboard.press("Enter")
    tab_to(page, fleet.campaign.name)
    page.keyboard.press("Enter")
    page.wait_for_selector("#halt")
    tab_to(page, "Halt now")
    page.keyboard.press("Enter")
    page.wait_for_selector("#verdict:has-text('paused')")

    fleet.campaign.refresh_from_db()
    assert fleet.campaign.state == "paused"


def test_escape_closes_the_menu_and_gives_the_focus_back(fleet: Fleet, visitor: Visitor) -> None:
    page = visitor.page(Role.VIEWER, size=(390, 844))
    page.goto("/")
    tab_to(page, "More")
    page.keyboard.press("Enter")
    expect(page.locator("#more")).to_be_visible()
    page.keyboard.press("Tab")
    assert page.evaluate("document.getElementById('more').contains(document.activeElement)")
    page.keyboard.press("Escape")

    expect(page.locator("#more")).to_be_hidden()
    assert focused(page).strip() == "More"
