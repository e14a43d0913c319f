"""A person at the dashboard: signed in, with a window of some width and a theme."""

from __future__ import annotations

from django.conf import settings
from django.test import Client
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page

from fleet.accounts.models import Role, User
from tests import factories

WIDE, NARROW = (1280, 900), (390, 844)
SIZES = [WIDE, NARROW]


def is_broken(message: ConsoleMessage) -> bool:
    """The browser logs each answer that is not 2xx as an error; an unreadable filter is a 400 by intent."""
    return message.type == "error" and "status of 400" not in message.text


class Visitor:
    """`errors` collects what a page's scripts and its content security policy complain about."""

    def __init__(self, browser: Browser, address: str) -> None:
        self._browser, self.address = browser, address
        self._contexts: list[BrowserContext] = []
        self.errors: list[str] = []

    def page(self, role: Role | None, *, size: tuple[int, int] = WIDE, theme: str = "light") -> Page:
        """A new window; nobody is signed in where `role` is None."""
        context = self._browser.new_context(
            viewport={"width": size[0], "height": size[1]},
            color_scheme=theme,  # type: ignore[arg-type]
            base_url=self.address,
            reduced_motion="reduce",
        )
        self._contexts.append(context)
        if role is not None:
            client = Client()
            client.force_login(self.user(role))
            value = client.cookies[settings.SESSION_COOKIE_NAME].value
            context.add_cookies([{"name": settings.SESSION_COOKIE_NAME, "value": value, "url": self.address}])
        page = context.new_page()
        page.on("console", lambda message: self.errors.append(message.text) if is_broken(message) else None)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        return page

    def user(self, role: Role) -> User:
        return User.objects.filter(role=role).first() or factories.make_user(role)

    def close(self) -> None:
        for context in self._contexts:
            context.close()


def overflow(page: Page) -> int:
    """Pixels by which the page is wider than its window."""
    return int(page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth"))


def signed_in_page(browser: Browser, address: str, role: Role, width: int, height: int, theme: str) -> Page:
    """Through the login page, as a person does."""
    user = factories.make_user(role)
    page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=theme)  # type: ignore[arg-type]
    page.goto(f"{address}/login/")
    page.fill("#id_username", user.username)
    page.fill("#id_password", factories.PASSWORD)
    page.click("button[type=submit]")
    page.wait_for_selector("#verdict")
    return page
