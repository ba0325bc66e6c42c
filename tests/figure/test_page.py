"""The HTML page of a figure, as text and in a browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from archdsl.cli import main
from tests.browser import open_page, screenshot

if TYPE_CHECKING:
    from playwright.sync_api import Page


@pytest.fixture(scope="module")
def gpt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pages") / "gpt.html"
    assert main(["draw", "gpt.arch", "-o", str(path)]) == 0
    return path


@pytest.fixture
def page(gpt: Path) -> Iterator[Page]:
    with open_page() as page:
        page.goto(gpt.as_uri())
        yield page


@pytest.mark.slow
def test_tip_on_hover_and_on_focus(page: Page) -> None:
    tip = page.locator(".archdsl-tip")
    box = page.locator("g[data-path='attention']")
    box.hover()
    assert "Masked Multi-Head Attention" in tip.inner_text()
    assert "parameters: 2,362,368" in tip.inner_text()
    screenshot(page, "page_tip")
    page.mouse.move(1, 1)
    assert not tip.is_visible()
    page.keyboard.press("Tab")
    assert "Embedding" in tip.inner_text()
    screenshot(page, "page_focus")
    page.keyboard.press("ArrowUp")
    assert "+" in tip.inner_text()
    page.keyboard.press("ArrowDown")
    assert "Embedding" in tip.inner_text()
