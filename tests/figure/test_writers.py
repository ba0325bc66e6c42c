"""The files of figures: SVG, TikZ, HTML, PNG and PDF."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from archdsl.analysis import analyse
from archdsl.figure.differences import side_by_side
from archdsl.figure.drawing import Drawing, Label, Rect
from archdsl.figure.fold import fold
from archdsl.figure.layout import layout
from archdsl.figure.page import page_of_drawing
from archdsl.figure.structure import Level
from archdsl.figure.svg import DARK, INK, LIGHT, svg
from archdsl.figure.tikz import tikz
from archdsl.semantics.library import standard_library
from tests.figure.contrast import contrast

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def drawing() -> Drawing:
    return layout(fold(analyse("vit.arch").graph), types=True)


def _texts(drawing: Drawing) -> list[str]:
    found = []
    for shape in drawing.shapes:
        found += [each.text for each in shape.labels] if isinstance(shape, Rect) else []
        found += [shape.text] if isinstance(shape, Label) else []
    return found


def test_svg_has_every_text_and_the_lines_of_the_spec(drawing: Drawing) -> None:
    root = ElementTree.fromstring(svg(drawing))
    assert [each.text for each in root.iter(f"{SVG}text")] == _texts(drawing)
    groups = {each.get("data-path"): each for each in root.iter(f"{SVG}g")}
    patches = groups["patches"]
    assert patches.get("data-file") == "vit.arch"
    source = (standard_library() / "vit.arch").read_text().splitlines()
    assert "patches(patch)" in source[int(patches.get("data-line", "0")) - 1]
    tip = patches.findtext(f"{SVG}title", "")
    assert "patches(patch = 16" in tip


def test_svg_follows_the_scheme_of_the_page(drawing: Drawing) -> None:
    assert set(LIGHT) == set(DARK)
    both = svg(drawing)
    assert "@media screen and (prefers-color-scheme: dark)" in both  # paper is light
    assert LIGHT["attention"][0] in both
    assert DARK["attention"][0] in both
    assert DARK["attention"][0] not in svg(drawing, "light")
    assert LIGHT["attention"][0] not in svg(drawing, "dark")


@pytest.mark.parametrize(("theme", "colours"), [("light", LIGHT), ("dark", DARK)])
def test_words_can_be_read_on_their_boxes(
    theme: str, colours: dict[str, tuple[str, str]]
) -> None:
    """The contrast of WCAG 2.1, level AA, of titles and of notes."""
    title, line, note, ground = INK[theme]
    for ink in (title, line, note):
        for fill, _ in colours.values():
            assert contrast(ground if fill == "none" else fill, ink) >= 4.5, (ink, fill)


def test_rules_hold_for_the_figure_alone(drawing: Drawing) -> None:
    """A notebook puts several figures into one page, beside other elements."""
    style = ElementTree.fromstring(svg(drawing)).findtext(f"{SVG}style", "")
    rules = [line for line in style.splitlines() if "{" in line and not line.startswith("@")]
    assert rules
    assert all(line.startswith(".archdsl ") for line in rules)


def test_tikz_has_every_text(drawing: Drawing) -> None:
    text = tikz(drawing)
    found = re.findall(r"\\node\[anchor.*?\] at \(.*?\) \{(.*)\};", text)
    plain = [each.replace(r"$\times$", "×").replace("{}", "") for each in found]
    assert plain == _texts(drawing)
    colours = set(re.findall(r"\\definecolor\{(.*?)\}", text))
    used = set(re.findall(r"(?:draw|fill|text)=([a-z-]+)", text))
    assert used <= colours


def test_tikz_escapes() -> None:
    label = Label(0, 0, r"50% of a_b & \c", "word")
    assert r"{50\% of a\_b \& \textbackslash{}c};" in tikz(Drawing("x", 10, 10, (label,)))


@pytest.mark.slow
@pytest.mark.parametrize("level", ["block", "operator"])
@pytest.mark.parametrize("spec", ["vaswani2017.arch", "jamba.arch", "gpt.arch"])
def test_latex_prints_it(spec: str, level: Level, tmp_path: Path) -> None:
    """Beside another model, for the colours of marks."""
    if not shutil.which("pdflatex"):
        pytest.skip("pdflatex, of the Debian package texlive-pictures, is not installed")
    left, right = (fold(analyse(each).graph, level) for each in (spec, "llama.arch"))
    (tmp_path / "figure.tex").write_text(tikz(side_by_side(left, right, types=True)))
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "figure.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    assert "(1 page" in done.stdout
    log = (tmp_path / "figure.log").read_text()
    assert not re.findall("Overfull|Missing character|Font Warning.*substituted", log)


def test_html_loads_nothing(drawing: Drawing) -> None:
    text = page_of_drawing(replace(drawing, title="<ViT>"))
    assert '<h1><a href="#">&lt;ViT&gt;</a></h1>' in text

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            found = dict(attrs)
            assert "src" not in found
            assert (found.get("href") or "#").startswith("#")

    Reader().feed(text)
    assert "<svg" in text
    assert "import " not in text


@pytest.mark.reference("cairosvg")
def test_png_and_pdf(drawing: Drawing) -> None:
    from archdsl.figure import raster

    still = svg(drawing, "light", page=True)
    png = raster.png(still)
    assert png.startswith(b"\x89PNG")
    wide = int.from_bytes(png[16:20], "big")
    assert wide == pytest.approx(raster.SCALE * drawing.width, abs=1)
    assert raster.pdf(still).startswith(b"%PDF")
