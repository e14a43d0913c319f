"""Takes the pictures in docs/screenshots from a running demo: `python -m docs.screenshots URL USER PASSWORD`.

Needs the tests' Playwright and a Chromium on the PATH. Take them while the campaign runs.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

OUT = Path(__file__).parent / "screenshots"
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
# Name of the picture: address, or what is clicked from the list at that address.
PAGES = {
    "fleet": ("/", ""),
    "nodes": ("/nodes/", ""),
    "node": ("/nodes/?text=label.behaviour%3Dfailing-self-test", "tbody a[href^='/nodes/']"),
    "version": ("/models/", "a:has-text('1.1')"),
    "patches": ("/patches/", ""),
    "servers": ("/network-servers/", ""),
    "plan": ("/campaigns/1/plan/", ""),
    "builder": ("/campaigns/new/", ""),
    "campaign": ("/campaigns/1/", ""),
    "audit": ("/audit/", ""),
    "status": ("/status/", ""),
}
NARROW = ("campaign", "nodes")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m docs.screenshots", description=__doc__)
    for name in ("url", "user", "password"):
        parser.add_argument(name)
    options = parser.parse_args()
    OUT.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        for width, names in ((1280, tuple(PAGES)), (390, NARROW)):
            page = sign_in(browser, options, width)
            for name in names:
                address, link = PAGES[name]
                page.goto(options.url + address)
                if link:
                    page.locator(link).first.click()
                page.wait_for_load_state("load")
                page.wait_for_timeout(700)  # parts that are fetched after the page
                suffix = "" if width == 1280 else f"-{width}"
                page.screenshot(path=str(OUT / f"{name}{suffix}.png"), full_page=width == 1280 and name != "nodes")
        browser.close()


def sign_in(browser: Browser, options: argparse.Namespace, width: int) -> Page:
    page = browser.new_context(viewport={"width": width, "height": 900}).new_page()
    page.goto(f"{options.url}/login/")
    page.fill("#id_username", options.user)
    page.fill("#id_password", options.password)
    page.click("button[type=submit]")
    page.wait_for_url(lambda url: "/login/" not in url)
    return page


if __name__ == "__main__":
    main()
