"""One Chromium for the browser tests of a module."""

from collections.abc import Iterator

import pytest
from browsing import FLAGS, find_chromium


@pytest.fixture(scope="module")
def browser() -> Iterator:
    """Start Chromium, or skip."""
    executable = find_chromium()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=executable, args=FLAGS.split()
        )
        yield chromium
        chromium.close()
