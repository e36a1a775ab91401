"""A real browser for the tests of the page."""

import os
import shutil

import pytest

ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
ARGUMENTS += ["--disable-component-update", "--disable-sync"]


def find_chromium():
    """Return the path of a Chromium: LIGHTNING_ADV_CHROMIUM, or what is installed; None where there is none."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return os.environ.get("LIGHTNING_ADV_CHROMIUM") or next(filter(None, map(shutil.which, names)), None)


@pytest.fixture(scope="session")
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
