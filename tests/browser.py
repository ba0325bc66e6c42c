"""A page in headless Chromium, for tests of what people see.

The tests that use it are slow. They need the package playwright and a Chromium of the system
(Debian's package `chromium`, or the path in ARCHDSL_CHROMIUM).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Page

NAMES = ("chromium", "chromium-browser", "google-chrome")


@contextmanager
def open_page(
    *, width: int = 1280, height: int = 800, dark: bool = False
) -> Generator[Page, None, None]:
    """A new page. An error in its scripts, or in its console, fails the test."""
    playwright = pytest.importorskip("playwright.sync_api")
    chromium = os.environ.get("ARCHDSL_CHROMIUM") or next(
        filter(None, map(shutil.which, NAMES)), None
    )
    if chromium is None:
        pytest.skip("no Chromium is installed")
    errors: list[str] = []
    with playwright.sync_playwright() as started:
        # Chromium's own sandbox does not start as root.
        browser = started.chromium.launch(executable_path=chromium, chromium_sandbox=False)
        page = browser.new_page(
            viewport={"width": width, "height": height},
            color_scheme="dark" if dark else "light",
        )
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on(
            "console",
            lambda message: errors.append(message.text) if message.type == "error" else None,
        )
        yield page
        browser.close()
    assert not errors, errors


def screenshot(page: Page, name: str) -> None:
    """Save what the page shows, where ARCHDSL_SCREENSHOTS names a folder to look at."""
    folder = os.environ.get("ARCHDSL_SCREENSHOTS")
    if folder:
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)
