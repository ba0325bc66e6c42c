"""The page of `archdsl play` in headless Chromium."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from archdsl.play.given import Given
from archdsl.play.server import Server
from tests.browser import open_page, screenshot

pytestmark = pytest.mark.slow

EXAMPLE = Path(__file__).parents[2] / "examples" / "gpt_shakespeare"
BAG = EXAMPLE.parent / "vit_fashion" / "samples" / "bag.png"
IMAGES = """
model Images(side = 4, classes = 3) {
  input image: float[3, side, side]
  output logits: float[classes] = image -> patches(side) -> mean -> linear(classes)
  loss cross_entropy(logits, label: int < classes)
}
"""
SOON = 60_000  # milliseconds, in which a model is compiled


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    given = Given(
        text=(EXAMPLE / "shakespeare.arch").read_text(),
        title="shakespeare.arch",
        folder=str(EXAMPLE),
        weights=str(EXAMPLE / "trained.safetensors"),
        tokenizer=str(EXAMPLE / "tokenizer.json"),
        device="CPU",
    )
    made = Server(given, 0, 60.0, 10**9)
    with made.serving():
        yield made


def test_a_mistake_is_underlined_and_a_mended_model_generates(server: Server) -> None:
    expect = pytest.importorskip("playwright.sync_api").expect
    with open_page(width=1600, height=1000) as page:
        page.goto(server.url)
        expect(page.locator("#figure svg")).to_be_visible(timeout=SOON)
        assert "token" not in page.url

        editor = page.locator("#editor textarea")
        text = editor.input_value()
        assert text == server.given.text
        editor.fill(text.replace("norm(rms) -> mlp_shift", "nrom(rms) -> mlp_shift"))
        expect(page.locator("#editor .problem")).to_have_text("nrom")
        expect(page.locator("#verdict")).to_have_text("1 mistake")
        screenshot(page, "play_mistake")
        editor.fill(text)
        expect(page.locator("#verdict")).to_have_text("No mistakes", timeout=SOON)
        expect(page.locator("#editor .problem")).to_have_count(0)

        panel = page.locator("#run")
        panel.locator("textarea").fill("ROMEO.\n")
        panel.get_by_label("tokens", exact=True).fill("100000")
        panel.get_by_role("button", name="Generate").click()
        shown = panel.locator(".run-text")
        expect(shown).to_have_text(re.compile(r"^ROMEO\.\s[\s\S]{60}"), timeout=SOON)
        expect(panel.get_by_role("button", name="Generate")).to_be_disabled()
        expect(panel.locator(".run-status")).to_contain_text("per second")
        screenshot(page, "play_generate")
        panel.get_by_role("button", name="Stop").click()
        expect(panel.locator(".run-status")).to_have_text("Stopped.")
        expect(panel.get_by_role("button", name="Generate")).to_be_enabled()
        before = shown.text_content()
        page.wait_for_timeout(300)
        assert shown.text_content() == before

        panel.get_by_label("tokens", exact=True).fill("5")
        panel.get_by_role("button", name="Generate").click()
        expect(panel.locator(".run-status")).to_contain_text("ended by length", timeout=SOON)
        panel.get_by_role("button", name="Run once").click()
        expect(panel.locator("caption")).to_contain_text("shape [7, 84]", timeout=SOON)
        screenshot(page, "play_run")

        # Weights of another model are refused, with the reason.
        editor.fill(text.replace("hidden = 320", "hidden = 64"))
        expect(page.locator("#verdict")).to_have_text("No mistakes", timeout=SOON)
        panel.get_by_role("button", name="Run once").click()
        expect(panel.locator(".run-error")).to_contain_text("error[checkpoint]", timeout=SOON)
        panel.get_by_label("weights").select_option("random")
        panel.get_by_role("button", name="Run once").click()
        expect(panel.locator("caption")).to_contain_text("shape [7, 84]", timeout=SOON)


@pytest.mark.parametrize("dark", [False, True])
def test_an_image_is_classified(server: Server, dark: bool) -> None:
    expect = pytest.importorskip("playwright.sync_api").expect
    with open_page(width=400, height=900, dark=dark) as page:
        page.goto(server.url)
        expect(page.locator("#figure svg")).to_be_visible(timeout=SOON)
        page.locator("#editor textarea").fill(IMAGES)
        panel = page.locator("#run")
        panel.locator("input[type=file]").set_input_files(BAG, timeout=SOON)
        panel.get_by_label("weights").select_option("random")
        panel.get_by_role("button", name="Classify").click()
        expect(panel.locator("tbody tr")).to_have_count(3, timeout=SOON)
        screenshot(page, f"play_classify_{'dark' if dark else 'light'}")
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width <= 400


def test_an_old_address_says_so(server: Server) -> None:
    with pytest.raises(AssertionError, match="401"):  # which the console shows
        open_old_address(server)


def open_old_address(server: Server) -> None:
    expect = pytest.importorskip("playwright.sync_api").expect
    with open_page() as page:
        page.goto(server.url.replace(server.token, "old"))
        expect(page.locator("#state")).to_contain_text("This address is old")
