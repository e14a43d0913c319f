"""Accounts and the audit log in Chromium: nothing overflows, and a token is made and copied from the page."""

from __future__ import annotations

import pytest
from playwright.sync_api import Browser

from fleet.accounts.models import ApiToken, Role, User
from tests.browser.visitor import SIZES, signed_in_page
from tests.integration.frontend.conftest import Fleet

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]
ADDRESSES = ["/users/", "/users/new/", "/users/roles/", "/account/", "/account/tokens/", "/audit/"]


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_no_page_of_accounts_overflows_and_a_token_is_made(
    fleet: Fleet,
    live_server: object,
    browser: Browser,
    width: int,
    height: int,
) -> None:
    address = live_server.url  # type: ignore[attr-defined]
    page = signed_in_page(browser, address, Role.ADMIN, width, height, "light")
    errors: list[str] = []
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    for path in [*ADDRESSES, f"/users/{User.objects.get().pk}/"]:
        page.goto(address + path)
        page.wait_for_load_state("load")
        overflow = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert overflow <= 0, f"{path} is {overflow} px too wide"
        assert errors == [], f"{path}: {errors}"

    page.goto(f"{address}/account/tokens/")
    page.fill("#id_name", "build server")
    page.check("#id_scopes_0")
    page.click("text=Make the token")
    secret = page.inner_text("#secret")

    assert ApiToken.objects.get(token_hash=ApiToken.hash(secret)).scopes == ["read"]
