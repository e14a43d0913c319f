from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, sync_playwright
from pytest_django.live_server_helper import LiveServer

from tests.browser.chromium import chromium_path
from tests.browser.visitor import Visitor
from tests.integration.frontend.conftest import Fleet, fleet

__all__ = ["Fleet", "fleet"]


# For this folder only: the interface's event loop runs in this thread and would be in the way of other tests' loops.
@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    path = chromium_path()
    with pytest.MonkeyPatch.context() as patch, sync_playwright() as playwright:
        # Django would refuse its database in a thread that has a running loop.
        patch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "true")
        browser = playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        )
        yield browser
        browser.close()


@pytest.fixture
def visitor(browser: Browser, live_server: LiveServer) -> Iterator[Visitor]:
    made = Visitor(browser, live_server.url)
    yield made
    made.close()
