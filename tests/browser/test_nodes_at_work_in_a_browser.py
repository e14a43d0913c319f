"""Import with errors, mended, applied; labels of ticked nodes; a saved view: with the keyboard's and the mouse's events."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from devices.models import Node, SavedView
from fleet.accounts.models import Role
from tests.browser.visitor import is_broken, signed_in_page
from tests.integration.frontend.conftest import Fleet

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


def picture(page: Page, name: str) -> None:
    overflow = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    if folder := os.environ.get("SCREENSHOTS"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=f"{folder}/{name}.png", full_page=True)
    assert overflow <= 0, f"{name} is {overflow} px too wide"


@pytest.mark.parametrize(("width", "height"), [(1280, 900), (390, 844)])
def test_an_operator_finds_saves_labels_and_imports(
    fleet: Fleet,
    live_server: object,
    browser: Browser,
    tmp_path: Path,
    width: int,
    height: int,
) -> None:
    address = live_server.url  # type: ignore[attr-defined]
    page = signed_in_page(browser, address, Role.OPERATOR, width, height, "light")
    errors: list[str] = []
    page.on("console", lambda message: errors.append(message.text) if is_broken(message) else None)
    page.on("pageerror", lambda error: errors.append(str(error)))

    page.goto(f"{address}/nodes/")
    expect(page.locator("#filter-says")).to_contain_text("12 nodes match")
    page.locator("#text").press_sequentially("profile:stm32l4 site")
    expect(page.locator("#filter-says")).to_contain_text("an operator was expected")
    expect(page.locator("#filter-says pre")).to_contain_text("^")
    page.click("#filter-help summary")
    picture(page, f"filter-error-{width}")
    page.locator("#text").press("End")
    page.locator("#text").press_sequentially(":plant-3")
    expect(page.locator("#filter-says")).to_contain_text("11 nodes match")
    page.locator("#text").press("Enter")
    page.wait_for_url("**text=**")

    page.click("#save-view summary")
    page.fill("#view-name", "plant 3")
    page.check("#save-view input[name=shared]")
    page.click("#save-view button")
    expect(page.locator("nav.tabs [aria-current]")).to_contain_text("plant 3")
    assert SavedView.objects.get().shared
    picture(page, f"nodes-view-{width}")

    first = fleet.nodes["planned"].endpoint
    page.get_by_label(f"Tick {first}").check()
    page.click("button[value=ticked]")
    page.fill("#id_put", "tag=canary")
    page.get_by_role("button", name="Preview").click()
    expect(page.locator("#verdict")).to_contain_text("This changes 1 node.")
    picture(page, f"relabel-{width}")
    page.get_by_role("button", name="Change 1 node").click()
    expect(page.locator(".messages")).to_contain_text("1 node changed.")
    assert Node.objects.get(endpoint=first).labels == {"line": "7", "tag": "canary"}

    page.goto(f"{address}/nodes/import/")
    picture(page, f"import-{width}")
    file = tmp_path / "nodes.csv"
    file.write_text("endpoint,link,profile,labels\nnew-1,nbiot,stm32x,line\nabc,lorawan,stm32l4,\n")
    page.set_input_files("#id_file", file)
    page.get_by_role("button", name="Check the file").click()
    expect(page.locator("#verdict")).to_contain_text("3 things are wrong")
    picture(page, f"import-errors-{width}")
    file.write_text("endpoint,link,profile,labels\nnew-1,nbiot,stm32l4,line=7\nA1B2C3D4E5F60718,lorawan,stm32l4,\n")
    page.set_input_files("#id_file", file)
    page.get_by_role("button", name="Check the file").click()
    expect(page.locator("#verdict")).to_contain_text("This registers 2 nodes")
    picture(page, f"import-preview-{width}")
    page.get_by_role("button", name="Apply").click()
    expect(page.locator(".messages")).to_contain_text("2 nodes registered")
    assert Node.objects.filter(endpoint="a1b2c3d4e5f60718").exists()

    page.goto(f"{address}/nodes/{fleet.nodes['failed'].pk}/")
    page.click("#describe summary")
    picture(page, f"node-{width}")
    page.get_by_label("Labels", exact=True).fill("line=9")
    page.get_by_role("button", name="Save").click()
    expect(page.locator(".messages")).to_contain_text("saved")
    page.locator("#timeline-body").get_by_role("link", name="Campaigns").click()
    expect(page.locator("#timeline-body [aria-current]")).to_have_text("Campaigns")
    assert errors == []
