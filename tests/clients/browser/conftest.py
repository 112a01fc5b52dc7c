"""A headless Chromium with a fresh profile, and pages whose own errors fail the test."""

import os
import shutil
from collections.abc import AsyncIterator
from typing import Final

import pytest
from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Page, async_playwright

NAMES: Final = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS: Final = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-dev-shm-usage",
    "--no-first-run",
)
NONE: Final = f"no browser: none of {', '.join(NAMES)} is on PATH"

# What a browser says by itself of requests that fail, which tests here make fail.
_OF_THE_NETWORK: Final = ("Failed to load resource", "net::ERR_", "the server responded with")


@pytest.fixture(scope="session")
def browser_path() -> str:
    """The browser on PATH; without one these tests are skipped, and fail where CI=true."""
    for name in NAMES:
        found = shutil.which(name)
        if found is not None:
            return found
    if os.environ.get("CI", "").lower() == "true":
        pytest.fail(f"{NONE} (CI=true: this test must run)")
    pytest.skip(NONE)


@pytest.fixture
async def browser(browser_path: str) -> AsyncIterator[Browser]:
    """A browser of this test's own."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=browser_path, args=[*FLAGS])
        try:
            yield browser
        finally:
            await browser.close()


@pytest.fixture
async def context(browser: Browser) -> BrowserContext:
    """A fresh profile."""
    context = await browser.new_context()
    context.set_default_timeout(15_000)
    return context


@pytest.fixture
async def page(context: BrowserContext) -> AsyncIterator[Page]:
    """A tab; an exception in it, or an error on its console, fails the test at its end."""
    page = await context.new_page()
    errors: list[str] = []

    def heard(message: ConsoleMessage) -> None:
        if message.type == "error" and not any(n in message.text for n in _OF_THE_NETWORK):
            errors.append(message.text)

    page.on("console", heard)
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield page
    assert errors == []
