"""The HTML page of a model, as text and in a browser."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import pytest

from archdsl.analysis import analyse, models
from archdsl.cli import main
from archdsl.describe.cost_curves import BATCHES, cost_curves, sizes
from archdsl.diagnostics import Source
from archdsl.figure.fold import fold
from archdsl.figure.layout import layout
from archdsl.figure.listing import listing
from archdsl.figure.page import page as page_of
from archdsl.figure.structure import Box, Level, items
from archdsl.figure.views import views
from archdsl.graph.cost import cost, format_bytes, format_count
from archdsl.graph.types import Size
from archdsl.semantics.library import read, standard_library, tree
from tests.browser import open_page, screenshot
from tests.figure.geometry import problems
from tests.suite import first, some

if TYPE_CHECKING:
    from playwright.sync_api import Page


class Read(HTMLParser):
    """What a page holds: boxes by the figure that they are in, texts by file, and its data."""

    def __init__(self, text: str):
        super().__init__()
        self.boxes: dict[str, list[dict[str, str]]] = {"": []}
        self.lines: dict[str, int] = {}
        self.names: list[str] = []
        self.view, self.file = "", ""
        self.feed(text)
        found = re.search(r'id="data">(.*?)</script>', text)
        assert found
        self.data: dict[str, Any] = json.loads(found[1])

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        match tag:
            case "template":
                self.view = found["id"].removeprefix("view:")
                self.boxes[self.view] = []
            case "g":
                self.boxes[self.view].append(found)
            case "ol" if "data-file" in found:
                self.file = found["data-file"]
                self.lines[self.file] = 0
            case "li" if "data-line" in found:
                self.lines[self.file] += 1
                assert found["data-line"] == str(self.lines[self.file])


def _files() -> list[str]:
    """The files of the standard library with a model."""
    files = sorted(standard_library().glob("*.arch"))
    return [path.name for path in files if "\nmodel " in path.read_text(encoding="utf-8")]


@cache
def _read(spec: str, level: Level = "block") -> Read:
    found = analyse(spec)
    figure = fold(found.graph, level, inside=True)
    return Read(page_of(figure, cost_curves(found.graph), spec=found.model.span.source))


@pytest.mark.parametrize(
    "spec", some(["gpt.arch", "jamba.arch", "vaswani2017.arch"], "gpt.arch")
)
def test_every_box_has_its_lines_and_opens_a_figure(spec: str) -> None:
    read = _read(spec)
    assert next(iter(read.lines)) == spec
    opened = set()
    for box in (box for boxes in read.boxes.values() for box in boxes):
        alone = f"{box['data-file']}:{box['data-line']}" if "data-file" in box else ""
        places = box.get("data-lines", alone).split()
        # Frames around layers of one kind have no path, nor have words for values.
        assert places or "data-path" not in box
        for place in places:
            file, _, lines = place.rpartition(":")
            first, _, last = lines.partition("-")
            assert 1 <= int(first) <= int(last or first) <= read.lines[unquote(file)]
        opened |= {box["data-opens"]} if "data-opens" in box else set()
    assert opened == {*read.boxes} - {""}
    assert [view["name"] for view in read.data["views"]] == [*read.boxes]
    assert all(view["parent"] in read.boxes for view in read.data["views"][1:])


def test_texts_of_a_spec_are_no_html(tmp_path: Path) -> None:
    spec, file = tmp_path / "a 'b'.arch", tmp_path / "x.html"
    evil = "# </script><!-- <script> {{css}} </template>\n"
    spec.write_text(f"{evil}model M() {{ input x: float[8]  output y: float[8] = x -> relu }}")
    assert main(["draw", str(spec), "-o", str(file)]) == 0
    text = file.read_text(encoding="utf-8")
    assert (text.count("<script"), text.count("</script>"), text.count("<!--")) == (2, 2, 0)
    assert "{{css}}" in text
    for name in re.findall(r'aria-(?:controls|labelledby)="([^"]*)"', text):
        assert f'id="{name}"' in text
        assert " " not in name


def test_spec_is_shown_as_it_is() -> None:
    found = analyse("gpt.arch")
    text = page_of(fold(found.graph), spec=found.model.span.source)
    source = found.model.span.source.text
    listed = re.search(r'<ol role="tabpanel".*?</ol>', text, re.DOTALL)
    assert listed

    class Text(HTMLParser):
        found = ""

        def handle_data(self, data: str) -> None:
            self.found += data

    reader = Text()
    reader.feed(listed[0])
    assert reader.found.strip("\n") == source.strip("\n")
    assert '<i class="operator">embed</i>' in listed[0]
    assert '<i class="call">self_attention_block</i>' in listed[0]
    assert '<i class="keyword">model</i>' in listed[0]
    lines = listing(
        Source("a.arch", "block b(x: float[T, D]): float[T, D] {\n  x -> norm: mean\n}")
    )
    assert 'x -&gt; norm: <i class="operator">mean</i>' in lines  # a label, and a step


@pytest.mark.parametrize("spec", some(["gpt.arch", "whisper.arch", "vit.arch"], "gpt.arch"))
def test_formulas_of_the_page_are_the_cost(spec: str) -> None:
    data, graph = _read(spec).data, analyse(spec).graph
    assert [axis["name"] for axis in data["axes"]] == [axis.name for axis in graph.varying]
    steps = [sizes(axis) for axis in graph.varying]
    for at in range(max(map(len, steps), default=1)):
        where = {a.name: s[at % len(s)] for a, s in zip(graph.varying, steps, strict=True)}
        expected = cost(graph, where)
        for name, formulas in data["cost"].items():
            found = max(Size.read(text).at(where) for text in formulas)
            assert found == getattr(expected, name), (name, where)


def test_boxes_open_to_their_operators() -> None:
    """Level by level, until nothing has parts: a mixture, its experts, their linear layers."""
    figure = fold(analyse("jamba.arch").graph, "model", inside=True)
    found = {view.name: (view, inside) for view, inside in views(figure)}
    assert [name for name in found if name.startswith("layer/mixture")] == [
        "layer/mixture-of-experts",
        "layer/mixture-of-experts/experts",
    ]
    experts, inside = found["layer/mixture-of-experts/experts"]
    assert experts.parent == "layer/mixture-of-experts"
    titles = [item.title for item in items(inside.body) if isinstance(item, Box)]
    assert titles == ["Linear", "SiLU", "Linear", "Linear"]
    assert found["layer/mixture-of-experts"][0].within == "layers 1, 3, 5, …"


@pytest.mark.parametrize("spec", first(["gpt.arch", *_files()]))
def test_geometry_of_what_opens(spec: str) -> None:
    model = models(tree(read(str(standard_library() / spec))))[0]
    for view, inside in views(fold(analyse(f"{spec}:{model}").graph, inside=True)):
        assert problems(layout(inside, types=True)) == [], view.name


def test_nothing_opens_where_all_operators_are_drawn() -> None:
    assert [*_read("gpt.arch", "operator").boxes] == [""]


def test_calls_lead_to_the_operators_of_a_block() -> None:
    """A box knows the line of its block's call, and of the arguments that are blocks."""
    figure = fold(analyse("llama.arch").graph)
    (feed,) = [
        i for i in items(figure.body) if isinstance(i, Box) and i.title == "Feed Forward"
    ]
    span = feed.origin.span
    assert span is not None
    assert span.text.startswith("gated_mlp(inner")
    texts = [each.line_text.strip() for each in feed.origin.others]
    assert texts[0] == "a + (a -> norm(rms, eps) -> mlp: feed)"
    assert any(text.startswith("(x -> gate: linear(hidden, bias)") for text in texts)


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


ATTENTION = "#figure g[data-path='attention']"


def _line(page: Page, file: str, number: int) -> Any:
    return page.locator(f"#spec ol[data-file='{file}'] li[data-line='{number}']")


@pytest.mark.slow
def test_tip_on_hover_and_on_focus(page: Page) -> None:
    tip = page.locator(".archdsl-tip")
    page.locator(ATTENTION).hover()
    assert "Masked Multi-Head Attention" in tip.inner_text()
    assert "parameters: 2,362,368" in tip.inner_text()
    screenshot(page, "page_tip")
    page.mouse.move(1, 1)
    assert not tip.is_visible()
    page.locator("#figure [tabindex='0']").focus()  # the lowest one
    page.keyboard.press("ArrowUp")
    assert tip.inner_text().startswith("Embedding")
    page.keyboard.press("ArrowDown")
    assert "type: int[T] < 50257" in tip.inner_text()
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowUp")
    assert tip.inner_text().startswith("+")
    screenshot(page, "page_focus")


@pytest.mark.slow
def test_box_and_lines_point_at_each_other(page: Page) -> None:
    page.locator(ATTENTION).hover()
    own = page.locator("#spec li.own")
    assert own.inner_text() == "  a = x + (x -> norm -> attention(heads, causal))"
    assert page.locator("#spec ol:visible").get_attribute("data-file") == "blocks.arch"
    _line(page, "blocks.arch", 6).hover()
    lit = page.locator("#figure g.lit")
    assert lit.evaluate_all("all => all.map(box => box.dataset.path)") == [
        *("norm_2", "mlp", "add_2")
    ]
    screenshot(page, "page_line")
    page.mouse.move(1, 1)
    assert lit.count() == 0
    page.get_by_role("tab", name="gpt.arch").click()
    _line(page, "gpt.arch", 12).hover()  # the stack, and all that is in it
    assert lit.count() == 7
    page.mouse.move(1, 1)
    page.locator("#spec ol:visible").focus()
    for _ in ("tokens", "embed", "posenc", "the stack"):
        page.keyboard.press("ArrowDown")
    assert lit.count() == 7
    screenshot(page, "page_line_by_keys")


@pytest.mark.slow
def test_boxes_open_by_click_and_by_keys(page: Page) -> None:
    page.locator(ATTENTION).click()
    crumbs = page.locator("#crumbs")
    assert crumbs.locator("li").all_inner_texts() == [
        "Layer × 12",
        "Masked Multi-Head Attention",
    ]
    assert page.locator("#figure g[data-path='attention.q']").is_visible()
    assert page.url.endswith("#masked-multi-head-attention")
    page.locator("#figure g[data-path='attention.attend']").hover()
    screenshot(page, "page_opened")
    page.go_back()
    assert page.locator(ATTENTION).is_visible()
    page.go_forward()
    page.keyboard.press("Escape")
    page.keyboard.press("Enter")  # the box that was opened has the focus
    assert page.locator("#figure g[data-path='attention.q']").is_visible()
    page.locator("h1 a").click()
    assert page.locator(ATTENTION).is_visible()
    assert crumbs.locator("li").count() == 0


@pytest.mark.slow
def test_first_tap_shows_the_tip_and_the_second_one_opens(page: Page) -> None:
    box, tip = page.locator(ATTENTION), page.locator(".archdsl-tip")
    click = "box => box.dispatchEvent(new PointerEvent('click', {pointerType: 'touch'}))"
    box.evaluate(click)
    assert tip.is_visible()
    box.evaluate(click)
    page.wait_for_url("**/*#masked-multi-head-attention")
    assert not tip.is_visible()


@pytest.mark.slow
def test_sliders_move_the_numbers(page: Page) -> None:
    graph = analyse("gpt.arch").graph
    (axis,) = graph.varying

    def shown() -> dict[str, int]:
        places = page.locator("#cost dl > div")
        pairs = places.evaluate_all("all => all.map(one => [one.id, one.dataset.value])")
        return {id.removeprefix("cost:"): int(value) for id, value in pairs}

    curves = cost_curves(graph)
    length, batch = page.locator("#cost input[type='range']").all()
    for number, size in enumerate(sizes(axis)):
        length.fill(str(number))
        assert shown() == curves.at({"T": size})
    for number, count in enumerate(BATCHES):
        batch.fill(str(number))
        assert shown() == curves.at(batch=count)
    page.locator("#cost input[type='number']").first.fill("77")
    assert shown() == curves.at({"T": 77}, BATCHES[-1])
    page.locator(ATTENTION).hover()
    tip = page.locator(".archdsl-tip").inner_text()
    flops = Size.read("3072 T^2 + 4_718_592 T").at({"T": 77})
    assert f"= {flops / 1e6:.4g} M at T = 77, of one example" in tip
    screenshot(page, "page_sliders")
    field = page.locator("#cost input[type='number']").first
    field.fill("0")
    assert shown() == curves.at({"T": 77}, BATCHES[-1])  # no such length
    assert field.get_attribute("aria-invalid") == "true"
    field.blur()
    assert field.input_value() == "77"


@pytest.mark.slow
@pytest.mark.parametrize("formula", ["2 T^2 - 3 T + 50_000", "(T - 5) // 2 + 2 ((T + 3) // 4)"])
def test_formulas_in_javascript(page: Page, formula: str) -> None:
    module = (Path(__file__).parents[2] / "archdsl/figure/assets/formula.js").read_text()
    run = "async ([module, formula, T]) => {const found = await import(module);"
    run += "return String(found.evaluate(formula, { T }))}"
    for size in (1, 2, 5, 1000):
        given = [f"data:text/javascript,{module}", formula, size]
        assert page.evaluate(run, given) == str(Size.read(formula).at({"T": size}))


@pytest.mark.slow
def test_large_numbers_are_written_as_by_python(page: Page) -> None:
    module = (Path(__file__).parents[2] / "archdsl/figure/assets/formula.js").read_text()
    run = "async ([module, ...all]) => (await import(module)).short(...all)"
    for number in (0, 64, 999, 1000, 999_960, 1_250_000, 291_648_000_000, 4 * 10**24):
        for unit, text in (("", format_count(number)), ("bytes", format_bytes(number))):
            given = [f"data:text/javascript,{module}", number, unit]
            assert page.evaluate(run, given) == text


@pytest.mark.slow
@pytest.mark.parametrize("spec", ["gpt", "transformer", "jamba", "swin"])
@pytest.mark.parametrize(("width", "dark"), [(1600, False), (1000, True), (400, True)])
def test_page_fits(spec: str, width: int, dark: bool, tmp_path: Path) -> None:
    path = tmp_path / f"{spec}.html"
    assert main(["draw", f"{spec}.arch", "-o", str(path)]) == 0
    with open_page(width=width, dark=dark) as page:
        page.goto(path.as_uri())
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        screenshot(page, f"page_{spec}_{width}")
