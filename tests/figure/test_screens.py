"""Figures as people see them: in a browser, by its own fonts, in light and dark."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from itertools import combinations
from typing import TYPE_CHECKING, Any, Literal, cast

import pytest

from archdsl.analysis import analyse, analyse_block
from archdsl.figure.differences import side_by_side
from archdsl.figure.drawing import SIZES, Drawing
from archdsl.figure.fold import fold
from archdsl.figure.layout import layout
from archdsl.figure.page import page_of_drawing
from archdsl.figure.structure import Figure, Level
from archdsl.figure.svg import DARK, INK, LIGHT, svg
from archdsl.frozen import Frozen
from tests.browser import open_page, screenshot
from tests.figure.contrast import contrast

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.slow

SPECS = (
    "vaswani2017.arch:encoder_layer",
    "vaswani2017.arch:decoder_layer",
    "vaswani2017.arch:base",
    "gpt.arch",
    "vit.arch",
    "mistral.arch:mixtral_8x7B",
    "jamba.arch",
    "qwen3_next.arch",
    "t5.arch",
    "whisper.arch",
    "clip.arch",
    "mamba.arch",
    "deepseek.arch:deepseek_v3",
    "swin.arch",
    "sam.arch",
    "dit.arch",
    "detr.arch",
)
PAIRS = (
    ("gpt.arch", "llama.arch"),
    ("llama.arch", "mistral.arch:mixtral_8x7B"),
    ("transformer.arch", "gpt.arch"),
    ("vit.arch", "dit.arch"),
)
# Each text: where its letters are, what it stands in (its box, else the picture), and colours.
TEXTS = """() => {
  const svg = document.querySelector("svg"), view = svg.viewBox.baseVal;
  return [...svg.querySelectorAll("text")].map(text => {
    const {x, width} = text.getBBox(), y = text.y.baseVal[0].value;
    const box = text.parentElement.querySelector(":scope > rect.box");
    const around = box ? box.getBBox() : {x: 0, y: 0, width: view.width, height: view.height};
    const filled = box && getComputedStyle(box).fill !== "none";
    return {
      words: text.textContent, role: text.classList[0], left: x, right: x + width, y,
      around: [around.x, around.y, around.x + around.width, around.y + around.height],
      ink: getComputedStyle(text).fill,
      ground: filled ? getComputedStyle(box).fill
        : getComputedStyle(document.body).backgroundColor,
    };
  });
}"""


class Screen(Frozen):
    page: Page
    dark: bool

    @property
    def theme(self) -> Literal["dark", "light"]:
        return "dark" if self.dark else "light"

    def show(self, drawing: Drawing, *names: str) -> list[dict[str, Any]]:
        """Shows a drawing, saves it by its names, and returns its texts."""
        style = f"margin: 0; background: {INK[self.theme][3]}"
        self.page.set_content(f'<body style="{style}">{svg(drawing)}')
        self.save(*names)
        return cast(list[dict[str, Any]], self.page.evaluate(TEXTS))

    def save(self, *names: str) -> None:
        parts = [each.replace(".arch", "").replace(":", "-") for each in names]
        screenshot(self.page, "-".join([*parts, self.theme]))


@pytest.fixture(scope="module", params=[False, True], ids=["light", "dark"])
def screen(request: pytest.FixtureRequest) -> Iterator[Screen]:
    with open_page(dark=request.param) as page:
        yield Screen(page, request.param)


# The colours of the pixels of an image.
COLOURS = """() => {
  const canvas = document.createElement("canvas"), image = document.images[0];
  canvas.width = image.width, canvas.height = image.height;
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0);
  const bytes = context.getImageData(0, 0, canvas.width, canvas.height).data;
  const hex = at => [...bytes.slice(at, at + 3)].map(x => x.toString(16).padStart(2, "0"));
  const pixels = [...bytes.keys()].filter(at => at % 4 == 0);
  return [...new Set(pixels.map(at => "#" + hex(at).join("")))];
}"""


def _figure(spec: str, level: Level) -> Figure:
    found = analyse_block(spec) or analyse(spec)
    return fold(found.graph, level)


def _problems(texts: list[dict[str, Any]]) -> list[str]:
    """Texts that are cut or on each other, or that cannot be read."""
    found = []
    areas = []
    for each in texts:
        size = SIZES[each["role"]]
        area = each["left"], each["y"] - 0.72 * size, each["right"], each["y"] + 0.2 * size
        areas.append((each["words"], area))
        left, top, right, bottom = each["around"]
        if not (left < area[0] and top < area[1] and area[2] < right and area[3] < bottom):
            found.append(f"`{each['words']}` leaves its box")
        if contrast(_hex(each["ink"]), _hex(each["ground"])) < 4.5:
            found.append(f"`{each['words']}` has too little contrast")
    for (words, a), (other, b) in combinations(areas, 2):
        if a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]:
            found.append(f"`{words}` and `{other}` overlap")
    return found


def _hex(colour: str) -> str:
    """`rgb(1, 2, 3)` as #010203."""
    return "#" + "".join(f"{int(part):02x}" for part in re.findall(r"\d+", colour)[:3])


@pytest.mark.parametrize("level", ["model", "block", "operator"])
@pytest.mark.parametrize("spec", SPECS)
def test_texts_in_a_browser(screen: Screen, spec: str, level: Level) -> None:
    drawing = layout(_figure(spec, level), types=level == "operator")
    texts = screen.show(drawing, "figure", spec, level)
    assert texts
    assert _problems(texts) == []


@pytest.mark.parametrize("spec", SPECS)
def test_texts_in_a_wider_font(screen: Screen, spec: str) -> None:
    """That of a Linux system without Helvetica, Arial and Liberation Sans."""
    screen.show(layout(_figure(spec, "block"), types=True), "wider", spec)
    style = "document.querySelector('svg').style.fontFamily = \"'DejaVu Sans', sans-serif\""
    screen.page.evaluate(style)
    assert _problems(screen.page.evaluate(TEXTS)) == []


@pytest.mark.parametrize(("left", "right"), PAIRS)
def test_differences_in_a_browser(screen: Screen, left: str, right: str) -> None:
    drawing = side_by_side(_figure(left, "block"), _figure(right, "block"))
    assert _problems(screen.show(drawing, "diff", left, right)) == []


def test_the_check_finds_mistakes(screen: Screen) -> None:
    screen.show(layout(_figure("gpt.arch", "block")), "mistakes")
    screen.page.evaluate(
        """() => {
          const [first, second] = document.querySelectorAll("text.title");
          first.textContent = "Much longer than its box is wide";
          second.style.fill = getComputedStyle(second.parentElement.querySelector("rect")).fill;
        }"""
    )
    found = _problems(screen.page.evaluate(TEXTS))
    assert "`Much longer than its box is wide` leaves its box" in found
    assert any("has too little contrast" in each for each in found)


@pytest.mark.parametrize("spec", ["gpt.arch", "vaswani2017.arch:base", "clip.arch"])
def test_a_page_fits_a_telephone(screen: Screen, spec: str) -> None:
    screen.page.set_viewport_size({"width": 400, "height": 800})
    screen.page.set_content(page_of_drawing(layout(_figure(spec, "block"))))
    assert screen.page.evaluate("document.documentElement.scrollWidth") <= 400
    screen.save("narrow", spec)
    screen.page.set_viewport_size({"width": 1280, "height": 800})


def test_an_image_follows_the_scheme(screen: Screen) -> None:
    """As a README shows it: an SVG in an `img`, which runs no script and loads nothing."""
    text = svg(layout(_figure("gpt.arch", "block")))
    data = base64.b64encode(text.encode()).decode()
    screen.page.set_content(f'<img src="data:image/svg+xml;base64,{data}">')
    screen.page.wait_for_function("document.images[0].complete")
    colours = screen.page.evaluate(COLOURS)
    assert (LIGHT["attention"][0] in colours) != screen.dark
    assert (DARK["attention"][0] in colours) == screen.dark
