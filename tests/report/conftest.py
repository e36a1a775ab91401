"""A real browser for the tests of the page."""

import os
import re
import shutil

import pytest

ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
ARGUMENTS += ["--disable-component-update", "--disable-sync"]
PATIENCE = 120_000  # milliseconds; other tests may keep the machine busy


def find_chromium():
    """Return the path of a Chromium: LIGHTNING_ADV_CHROMIUM, or what is installed; None where there is none."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return os.environ.get("LIGHTNING_ADV_CHROMIUM") or next(filter(None, map(shutil.which, names)), None)


@pytest.fixture(scope="module")  # its event loop runs until it is closed, which tests of another file may not expect
def browser():
    """A headless Chromium. Without one the test is skipped, or fails if LIGHTNING_ADV_BROWSER_TESTS is `required`."""
    path = find_chromium()
    if path is None:
        reason = "no Chromium: apt-get install chromium, or set LIGHTNING_ADV_CHROMIUM to the path of one"
        if os.environ.get("LIGHTNING_ADV_BROWSER_TESTS") == "required":
            pytest.fail(reason)
        pytest.skip(reason)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield started
        started.close()


@pytest.fixture(scope="module")
def open_page(browser):
    """Open a page; nothing may go wrong in any, and nothing be asked of a network."""
    troubles = []

    def open_page(path, width=1280, height=900, **options):
        page = browser.new_context(viewport={"width": width, "height": height}, **options).new_page()
        page.set_default_timeout(PATIENCE)
        page.on("console", lambda message: troubles.append(message.text))
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("dialog", lambda dialog: (troubles.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda request: re.match("file:|data:|blob:", request.url) or troubles.append(request.url))
        page.goto(path.as_uri())
        return page

    yield open_page
    assert troubles == []


@pytest.fixture
def visit(open_page):
    """A page of a test's own."""
    pages = []

    def visit(*arguments, **options):
        pages.append(open_page(*arguments, **options))
        return pages[-1]

    yield visit
    for page in pages:
        page.context.close()
