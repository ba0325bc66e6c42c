"""The site: a page for each spec, operator, command and error; links; colours; a browser."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from archdsl.cli import COMMANDS
from archdsl.diagnostics import CODES
from archdsl.graph.ops import CALLED
from archdsl.semantics.library import standard_library
from docs.site import gallery, lineage, links, reference, specs
from docs.site.__main__ import navigation, texts
from docs.site.lexer import ArchLexer
from docs.site.specs import Spec
from tests.browser import open_page, screenshot

LIBRARY = sorted(standard_library().glob("*.arch"))


def described(text: str, file: str = "x.arch", uses: tuple[str, ...] = ()) -> Spec:
    """A spec of which only the text is known."""
    return Spec(file, text, specs.comment(text), uses, (), ())


def test_each_spec_with_a_model_cites_its_source_and_its_year() -> None:
    for path in LIBRARY:
        text = path.read_text(encoding="utf-8")
        spec = described(text, path.name)
        assert spec.comment, path.name
        if re.search(r"^model ", text, re.MULTILINE) and "Python package" not in spec.comment:
            assert spec.year is not None, path.name
            assert 2017 <= spec.year <= 2030, path.name
            assert str(spec.year) in spec.source, path.name


def test_the_page_of_a_spec_has_figure_facts_sizes_differences_and_text() -> None:
    gpt, gpt1 = (
        specs.spec(str(standard_library() / name)) for name in ("gpt.arch", "gpt1.arch")
    )
    page = gallery.page(gallery.Subject(gpt1, [(gpt, "a reason")], [("GPT-2", "gpt2.arch")]))
    assert page.place == "gallery/gpt1.md"
    assert page.text.startswith("# GPT as published\n")
    assert "Year\n:   2018" in page.text
    assert "Cache\n:   73,728 bytes for each T" in page.text
    assert "Children\n:   [GPT-2](gpt2.arch)" in page.text
    assert "[GPT](gpt.arch) is a parent: a reason." in page.text
    assert (
        "| `base` | 116,534,784 | 466.1 MB | T ≤ 512 | 73,728 bytes for each T | 37.75 MB |"
        in page.text
    )
    assert page.text.count("<svg ") == 2  # the figure, and the one of differences
    assert "| context | T &lt;= 1,024 | T &lt;= 512 |" in page.text
    assert gpt1.text.rstrip() in page.text
    assert gpt1.kinds == {"decoder"}


def test_the_parents_of_a_spec_are_used_or_named_or_look_alike() -> None:
    bert = described("# BERT: an encoder (Devlin et al. 2018).", "bert.arch")
    roberta = described("# RoBERTa: BERT again (Liu et al. 2019).", "roberta.arch")
    user = described("# X: another one (Y 2020).", "x.arch", ("bert.arch",))
    assert lineage.names(roberta, bert)
    assert not lineage.names(bert, roberta)
    assert not lineage.names(described("# ModernBERT: an encoder."), bert)
    known = {each.file: each for each in (bert, roberta, user)}
    assert [p.file for p in lineage.parents_of(roberta, known)] == ["bert.arch"]
    assert [p.file for p in lineage.parents_of(user, known)] == ["bert.arch"]
    assert lineage.parents_of(bert, known) == []
    gpt, vit = (specs.spec(str(standard_library() / name)) for name in ("gpt.arch", "vit.arch"))
    assert lineage.distance(gpt, gpt) == 0 < lineage.distance(gpt, vit)
    [parent] = lineage.parents_of(vit, {"gpt.arch": gpt, "vit.arch": vit})
    assert (parent.file, parent.why) == ("gpt.arch", "of all older specs, it looks most alike")


def test_the_reference_has_every_operator_and_error() -> None:
    spec = specs.spec(str(standard_library() / "gpt.arch"))
    page = reference.operators([spec])
    assert re.findall(r"^## (\S+)$", page, re.MULTILINE) == list(CALLED)
    assert re.findall(r"\[GPT\]\((\S+)\)", page)[0] == "../specs/gpt.arch"
    assert {f"errors/{code}.md" for code in CODES} <= {page.place for page in texts()}


@pytest.mark.long
def test_the_reference_has_every_command_and_the_python_api() -> None:
    commands = re.findall(r"^### archdsl (\S+)$", reference.commands(), re.MULTILINE)
    assert commands == list(COMMANDS)
    page = reference.python()
    assert "dtype: str = 'float32'," in page
    assert re.search(r"^### generate\n\n```python\ngenerate\(", page, re.MULTILINE)


def test_links_lead_to_the_pages_of_files(tmp_path: Path) -> None:
    text = (
        "[a](../specs/gpt.arch#x) [b](errors/README.md) [c](../tests/suite.py) `[d](../e)`\n"
        '<img src="figures/gpt.svg"> [f](https://example.org/)\n```sh run\n[g](h)\n```\n'
        "| `a\\|b` | c |\n"
    )
    pages = [
        links.Page("docs/a.md", "a.md", text),
        links.Page("specs/gpt.arch", "gallery/gpt.md", "# GPT"),
        links.Page("docs/errors/README.md", "errors/index.md", "[up](../a.md)"),
    ]
    links.Tree(pages).write(tmp_path)
    assert (tmp_path / "a.md").read_text() == (
        "[a](gallery/gpt.md#x) [b](errors/index.md) [c](source/tests/suite.py.md) `[d](../e)`\n"
        '<img src="docs/figures/gpt.svg"> [f](https://example.org/)\n```sh\n[g](h)\n```\n'
        "| `a|b` | c |\n"
    )
    assert (tmp_path / "errors/index.md").read_text() == "[up](../a.md)"
    assert "def some(" in (tmp_path / "source/tests/suite.py.md").read_text()
    assert (tmp_path / "docs/figures/gpt.svg").exists()
    with pytest.raises(FileNotFoundError, match=r"docs/a\.md links to docs/missing\.md"):
        links.Tree([links.Page("docs/a.md", "a.md", "[a](missing.md)")]).write(tmp_path)


def test_links_of_built_pages_to_nowhere_are_found(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "a.html").write_text(
        '<p id="x">…</p><a href="b/c.html#y">…</a> <a href="#x">…</a>'
    )
    (tmp_path / "b/c.html").write_text(
        '<a href="../a.html">…</a><a href="d.html">…</a><a href="https://example.org">…</a>'
        '<script src="https://example.org/x.js"></script>'
    )
    assert links.check(tmp_path) == [
        "a.html: links to b/c.html#y, which has no such place",
        "b/c.html: links to d.html, which is missing",
        "b/c.html: loads https://example.org/x.js",
    ]


def test_the_navigation_names_each_page_once() -> None:
    pages = {page.place: page.place for page in texts()}
    pages |= {"gallery/index.md": "Gallery", "gallery/gpt.md": "GPT", "source/x.md": "x"}
    pages |= {f"reference/{name}.md": name for name in ("operators", "commands", "python")}
    pages["source/examples/tour.ipynb.md"] = "Notebook"
    named = re.findall(r"'([\w/.-]+\.md)'\}", str(navigation(pages)))
    assert sorted(named) == sorted(pages.keys() - {"source/x.md"})


@pytest.mark.parametrize("path", LIBRARY[::16], ids=lambda path: path.stem)
def test_the_colours_cover_a_spec(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    tokens = list(ArchLexer().get_tokens_unprocessed(text))
    assert "".join(piece for _, _, piece in tokens) == text
    kinds = {piece: str(kind) for _, kind, piece in tokens}
    assert kinds["linear"] == "Token.Name.Builtin"
    assert "Token.Keyword.Declaration" in (kinds.get("block"), kinds.get("model"))


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    """The address of the built site."""
    subprocess.run([sys.executable, "-m", "docs.site"], check=True, cwd=links.ROOT)
    handler = partial(SimpleHTTPRequestHandler, directory=links.ROOT / "build/site/html")
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.slow
@pytest.mark.reference("zensical")
def test_each_spec_and_each_error_has_a_page_of_the_site(site: str) -> None:
    pages = links.ROOT / "build/site/html"
    for folder, names in (("gallery", [path.stem for path in LIBRARY]), ("errors", CODES)):
        assert {path.stem for path in (pages / folder).glob("*.html")} == {"index", *names}
    # A spec is drawn, and so are its differences from its parents. The oldest have none.
    for path in LIBRARY:
        page = (pages / f"gallery/{path.stem}.html").read_text(encoding="utf-8")
        if "\nmodel " in path.read_text(encoding="utf-8"):
            old = path.stem in ("transformer", "vaswani2017")
            assert ("is a parent: " in page) is not old, path.stem
            assert page.count('class="drawn"') >= 2 - old, path.stem


PAGES = [
    "index",
    "gallery/index",
    "gallery/gpt",
    "gallery/deepseek",
    "errors/not-causal",
    "reference/operators",
]


@pytest.mark.slow
@pytest.mark.reference("zensical", "playwright")
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (400, True)])
@pytest.mark.parametrize("name", PAGES)
def test_the_pages_fit_the_screen(site: str, name: str, width: int, dark: bool) -> None:
    with open_page(width=width, dark=dark) as page:
        page.goto(f"{site}/{name}.html")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        light = sum(map(int, re.findall(r"\d+", ground)[:3])) > 3 * 127
        assert light is not dark
        screenshot(page, f"site-{name.replace('/', '-')}-{width}")


@pytest.mark.slow
@pytest.mark.reference("zensical", "playwright")
def test_the_gallery_shows_one_kind_and_figures_answer(site: str) -> None:
    with open_page() as page:
        page.goto(f"{site}/gallery/index.html")
        every = page.locator(".card:visible").count()
        page.get_by_role("button", name="mixture").click()
        page.get_by_role("button", name="state").click()
        titles = page.locator(".card:visible strong").all_inner_texts()
        assert "Jamba" in titles
        assert "GPT-2" not in titles
        page.get_by_role("button", name="mixture").click()
        page.get_by_role("button", name="state").click()
        assert page.locator(".card:visible").count() == every
        page.locator(".card", has_text="GPT-2").click()
        page.locator(".drawn g[data-id]", has_text="Feed Forward").first.hover()
        assert "parameters" in page.locator(".archdsl-tip").inner_text()
        page.locator(".drawn g[data-id]", has_text="Feed Forward").first.click()
        page.wait_for_url(re.compile(r"gallery/gpt2\.html#line-0-\d+$"))
        line = page.locator(":target")
        assert "mlp" in line.inner_text()
        assert line.evaluate("each => getComputedStyle(each).whiteSpace") == "pre"
