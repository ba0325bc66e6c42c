"""The page in Chromium, with both of its engines: `archdsl play` and Python in the browser.

Building the folder of the second checks every spec in Node; a test compares them with CPython.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from archdsl.play.build import build, weights
from archdsl.play.given import Given
from archdsl.play.inspect import Inspector, Request
from archdsl.play.server import Server
from archdsl.play.site import ASSETS, examples
from archdsl.semantics.library import standard_library
from tests.browser import open_page, screenshot

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.slow

LOADING = 120_000  # milliseconds: other tests may run beside this one
SPECS = sorted(standard_library().glob("*.arch"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page as files. ARCHDSL_PLAYGROUND names a folder that was built before."""
    if known := os.environ.get("ARCHDSL_PLAYGROUND"):
        return Path(known)
    for program in ("npm", "node"):
        if not shutil.which(program):
            pytest.skip(f"{program} is not installed")
    folder = tmp_path_factory.mktemp("play") / "page"
    build(folder)
    return folder


class _Files(SimpleHTTPRequestHandler):
    extensions_map = {  # noqa: RUF012  # of the base class
        **SimpleHTTPRequestHandler.extensions_map,
        ".mjs": "text/javascript",
        ".wasm": "application/wasm",
    }

    def log_message(self, format: str, *args: object) -> None:
        pass


class _Folder(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """A page that is closed while it loads is no error."""


@contextmanager
def served(folder: Path) -> Iterator[str]:
    server = _Folder(("127.0.0.1", 0), partial(_Files, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(params=["server", "browser"])
def url(request: pytest.FixtureRequest) -> Generator[str, None, None]:
    if request.param == "browser":
        with served(request.getfixturevalue("folder")) as found:
            yield found
    else:
        server = Server(Given(), 0, 60, 8 * 10**9)
        with server.serving():
            yield server.url


@pytest.fixture
def local() -> Generator[str, None, None]:
    """The page of `archdsl play`, for what does not depend on the engine."""
    server = Server(Given(), 0, 60, 8 * 10**9)
    with server.serving():
        yield server.url


def load(page: Page, url: str) -> None:
    page.goto(url)
    page.wait_for_selector("#figure svg", timeout=LOADING)
    settle(page)


def settle(page: Page) -> None:
    """Waits for the answer to what is shown now."""
    page.wait_for_timeout(150)
    page.wait_for_selector("body[data-state=ready]", timeout=LOADING)


def write(page: Page, text: str) -> None:
    page.locator("textarea").first.fill(text)
    settle(page)


def text_of(page: Page) -> str:
    return page.locator("#editor textarea").input_value()


def select(page: Page, words: str) -> None:
    """Selects the first occurrence of words in the editor."""
    page.locator("#editor textarea").evaluate(
        "(area, words) => { area.focus(); const at = area.value.indexOf(words);"
        " area.setSelectionRange(at, at + words.length) }",
        words,
    )


def test_the_first_figure_comes_soon(folder: Path) -> None:
    """From an empty cache. On a machine that does nothing else, it took 3.5 seconds."""
    with served(folder) as url, open_page(width=1400, height=900) as page:
        start = time.monotonic()
        load(page, url)
        seconds = time.monotonic() - start
        plain, packed = map(sum, zip(*weights(folder).values(), strict=True))
        said = f"first figure after {seconds:.1f} s; {plain:,} bytes, {packed:,} by gzip"
        sys.stdout.write(f"\n{said}\n")
        screenshot(page, "playground")
        assert page.locator("#verdict").text_content() == "No mistakes"
        assert "163,087,441" in page.locator("#cost").inner_text()
    assert packed < 7_000_000


def test_a_mistake_is_underlined_and_mended(url: str) -> None:
    with open_page(width=1400, height=900) as page:
        load(page, url)
        before = page.locator("#figure svg").inner_html()
        select(page, "embed")
        page.keyboard.type("embde")
        page.wait_for_selector(".problem", timeout=LOADING)
        settle(page)
        assert page.locator(".problem").all_text_contents() == ["embde"]
        assert page.locator("#verdict").text_content() == "1 mistake"
        assert "there is no block embde" in page.locator("#problems li").inner_text()
        assert page.locator("#see.old").count() == 1
        screenshot(page, f"playground_mistake_{'token' in url}")
        page.locator(".problem").hover(force=True)  # the text is below the editor
        assert "did you mean `embed`?" in page.locator(".archdsl-tip:visible").inner_text()
        page.get_by_role("button", name="Replace it by embed").click()
        settle(page)
        assert page.locator(".problem").count() == 0
        assert page.locator("#verdict").text_content() == "No mistakes"
        assert page.locator("#see.old").count() == 0
        assert page.locator("#figure svg").inner_html() == before
        page.keyboard.press("Control+z")  # undo takes the fix back
        settle(page)
        assert "embde" in text_of(page)


def test_values_sizes_and_levels_change_the_answer(url: str) -> None:
    with open_page(width=1400, height=900) as page:
        load(page, url)
        boxes = page.locator("#figure g[data-id]").count()
        page.get_by_text("operators", exact=True).click()
        settle(page)
        assert page.locator("#figure g[data-id]").count() > boxes
        page.get_by_label("types", exact=True).check()
        settle(page)
        assert page.locator("#figure text.type").count() > 5
        page.get_by_label("T, as a number").fill("512")
        page.get_by_label("batch, as a number").fill("2")
        settle(page)
        flops = 2 * (36864 * 512**2 + 247_064_064 * 512)
        assert f"{flops / 1e9:.4g} G" in page.locator("#cost").inner_text()
        page.get_by_text("Parameters", exact=True).click()
        page.locator("#values label", has_text="depth").locator("input").fill("24")
        settle(page)
        assert "\N{MULTIPLICATION SIGN} 24" in page.locator("#figure").inner_text()
        page.locator("#values label", has_text="heads").locator("input").fill("7")
        settle(page)
        assert (
            "cannot be divided into 7 heads"
            in page.locator("#values [role=alert]").inner_text()
        )


def test_a_link_holds_the_spec(url: str) -> None:
    text = (
        "# Größe 𝄞\nmodel M(D = 8) {\n  input x: float[D]\n"
        "  output y: float[D] = x -> linear(D)\n}\n"
    )
    with open_page() as page:
        load(page, url)
        write(page, text)
        page.get_by_text("operators", exact=True).click()
        page.get_by_role("button", name="Copy link").click()
        page.wait_for_function("location.hash.length > 20")
        link = page.url
        page.evaluate("sessionStorage.removeItem('archdsl.draft')")
        page.goto("about:blank")
        load(page, link)
        assert text_of(page) == text
        assert page.locator("#level input:checked").get_attribute("value") == "operator"
        hash = page.evaluate(
            "(async () => (await import('./link.js')).encode({text: '', level: '\"]'}))()"
        )
        page.goto(f"{link.split('#')[0]}{hash}")
        page.wait_for_selector("#state:text('`level` of a request cannot be')")
        page.goto(link[:-9])
        page.wait_for_function(
            "document.querySelector('#state').textContent.includes('broken')"
        )


def test_a_spec_that_is_too_long_for_a_link_says_so(local: str) -> None:
    with open_page() as page:
        load(page, local)
        noise = page.evaluate("Array.from({length: 30000}, () => Math.random()).join('')")
        page.locator("#editor textarea").fill(f"# {noise}")
        page.get_by_role("button", name="Copy link").click()
        page.wait_for_function(
            "document.querySelector('#state').textContent.includes('too long')"
        )
        assert "#" not in page.url


def test_the_examples_are_the_library(local: str) -> None:
    with open_page(width=1400, height=1000) as page:
        load(page, local)
        files = page.locator("#example option").evaluate_all(
            "all => all.map(each => each.value)"
        )
        shown = [each["file"] for group in examples().values() for each in group]
        assert files == ["", *shown]
        page.select_option("#example", "transformer.arch")
        settle(page)
        assert "The Transformer" in text_of(page)
        assert "Logits" in page.locator("#figure").inner_text()
        screenshot(page, "playground_transformer")


def test_a_line_and_its_box_light_up_together(local: str) -> None:
    with open_page(width=1400, height=900) as page:
        load(page, local)
        box = page.locator("#figure g[data-id]", has_text="Embedding").first
        box.hover()
        marked = page.locator(".line.marked").all_text_contents()
        assert any("embed(" in line for line in marked)
        screenshot(page, "playground_hover")
        select(page, "linear")
        page.wait_for_selector("#figure g.lit")
        assert "Linear" in page.locator("#figure g.lit").all_text_contents()[0]


def test_a_variant_can_be_chosen(local: str) -> None:
    with open_page() as page:
        load(page, local)
        page.select_option("#example", "gpt2.arch")
        settle(page)
        page.select_option("#model", "xl")
        settle(page)
        assert "1,557,611,200" in page.locator("#cost").inner_text()
        page.get_by_text("Parameters", exact=True).click()
        depth = page.locator("#values label", has_text="depth").locator("input")
        assert depth.get_attribute("placeholder") == "48"


def test_another_text_has_fields_of_its_own(local: str) -> None:
    from playwright.sync_api import expect

    with open_page() as page:
        load(page, local)
        size, depth = page.get_by_label("T, as a number"), page.locator("#values input").first
        for choose in (
            lambda: page.select_option("#example", "gpt2.arch"),
            lambda: page.select_option("#model", "xl"),
        ):
            size.fill("512")
            settle(page)
            choose()
            expect(size).to_have_value("1024")
            settle(page)
            assert depth.input_value() == ""


def test_keys_indent_and_leave_the_editor(local: str) -> None:
    with open_page() as page:
        load(page, local)
        area = page.locator("#editor textarea")
        area.fill("")
        area.focus()
        page.keyboard.type("model M(D = 8) {\ninput x: float[D]")
        assert text_of(page) == "model M(D = 8) {\n  input x: float[D]"
        page.keyboard.press("Tab")
        assert text_of(page).endswith("]  ")
        page.keyboard.press("Shift+Tab")
        assert text_of(page) == "model M(D = 8) {\ninput x: float[D]  "
        page.keyboard.press("Escape")
        page.keyboard.press("Tab")
        assert not area.evaluate("area => area === document.activeElement")


def test_a_code_leads_to_its_page(local: str) -> None:
    with open_page() as page:
        load(page, local)
        write(
            page, "model M(D = 8) {\n  input x: float[D]\n  output y: float[D] = x -> nrom\n}\n"
        )
        page.get_by_role("button", name="unknown-name").click()
        page.wait_for_selector("dialog[open] h1")
        assert page.locator("dialog h1").inner_text() == "unknown-name"
        assert page.locator("dialog pre").count() >= 2
        screenshot(page, "playground_page_of_a_code")
        page.get_by_role("button", name="Close").click()
        assert page.locator("dialog[open]").count() == 0


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [400, 1600])
def test_the_page_fits(local: str, width: int, dark: bool) -> None:
    with open_page(width=width, height=900, dark=dark) as page:
        load(page, local)
        write(page, text_of(page).replace("heads = 12", "heads = 7"))
        page.wait_for_selector(".line.wrong")
        for each in page.locator("details > summary").all():
            each.click()
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= width
        screenshot(page, f"playground_{width}_{'dark' if dark else 'light'}")


def test_the_text_and_its_colours_are_the_same(local: str) -> None:
    """Of every spec, the coloured text is the text, and its lines are where the caret is."""
    with open_page() as page:
        load(page, local)
        for path in SPECS:
            text = path.read_text("utf-8")
            page.locator("#editor textarea").fill(text)
            shown = page.locator("#editor pre").evaluate("pre => pre.textContent")
            assert shown == f"{text}\n", path.name
        heights = [
            page.locator(f"#editor {each}").evaluate("each => each.scrollHeight")
            for each in ("pre", "textarea")
        ]
        assert abs(heights[0] - heights[1]) <= 1


def test_the_colours_are_those_of_the_grammar(local: str) -> None:
    with open_page() as page:
        load(page, local)
        found = (
            page.locator("#editor pre .line")
            .nth(5)
            .locator("span")
            .evaluate_all("all => all.map(each => [each.textContent, each.className])")
        )
        classes = dict(found)
        assert classes["model"] == "t-keyword t-declaration"
        assert classes["GPT"] == "t-entity t-name t-type"
        assert classes["50257"] == "t-constant t-numeric"
        step = page.locator("#editor pre .line").nth(11).inner_html()
        assert re.search(
            'class="t-entity t-name t-function t-call">self_attention_block<', step
        )


def test_a_check_that_hangs_is_stopped(folder: Path, tmp_path: Path) -> None:
    """With a page that waits less, so that the largest spec is too slow."""
    page_folder = tmp_path / "page"
    shutil.copytree(folder, page_folder)
    engine = page_folder / "engine.js"
    engine.write_text(engine.read_text().replace("PATIENCE = 8000", "PATIENCE = 400"))
    slow = max(SPECS, key=lambda path: path.stat().st_size)
    with served(page_folder) as url, open_page() as page:
        page.goto(url)
        page.wait_for_selector("body[data-state=ready]", timeout=LOADING)
        page.select_option("#example", slow.name)
        stopped = (
            "body[data-state=ready] #state:text('was stopped')"  # Python has started again
        )
        page.wait_for_selector(stopped, timeout=LOADING)


def test_pyodide_answers_as_cpython_does(folder: Path, tmp_path: Path) -> None:
    """Every spec, in every level of detail."""
    requests = [
        {"text": path.read_text("utf-8"), "level": level}
        for path in SPECS
        for level in ("model", "block", "operator")
    ]
    (tmp_path / "requests.json").write_text(json.dumps(requests))
    script = tmp_path / "answer.mjs"
    script.write_text(
        f"""
        import fs from "node:fs";
        import {{ loadPyodide }} from {json.dumps((folder / "pyodide/pyodide.mjs").as_uri())};
        const env = {{ HOME: "/", PYTHONPATH: "/", XDG_CACHE_HOME: "/cache" }};
        const indexURL = {json.dumps(f"{folder}/pyodide/")};
        const python = await loadPyodide({{ indexURL, env }});
        const code = new Uint8Array(fs.readFileSync({json.dumps(str(folder / "archdsl.zip"))}));
        python.unpackArchive(code, "zip", {{ extractDir: "/" }});
        const browser = python.pyimport("archdsl.play.browser");
        const answers = JSON.parse(fs.readFileSync("requests.json", "utf8")).map(request =>
          JSON.parse([...browser.answers(JSON.stringify(request))].at(-1)));
        fs.writeFileSync("answers.json", JSON.stringify(answers));
        """
    )
    done = subprocess.run(
        ["node", str(script)], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    answers = json.loads((tmp_path / "answers.json").read_text())
    inspector = Inspector()
    for request, answer in zip(requests, answers, strict=True):
        assert answer == inspector.answer(Request(**request)), request["text"][:60]


def test_the_folder_is_what_the_page_needs(folder: Path) -> None:
    """Nothing of the compiler that the page does not use is sent."""
    assert {each.name for each in ASSETS.glob("run.*")}
    assert not (folder / "run.js").exists()
    listed = subprocess.run(
        [sys.executable, "-m", "zipfile", "-l", str(folder / "archdsl.zip")],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "archdsl/play/browser.pyc" in listed
    assert "archdsl/model" not in listed
    assert ".py " not in listed
