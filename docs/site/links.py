"""Links between the pages of the site.

A page is that of a file or a folder of the repository, and links to others as files there do:
`../specs/gpt.arch` in a file of `docs/` leads to the page of that spec. What no page stands for
gets one that shows the file.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Collection, Iterator, Mapping
from html import unescape
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).parents[2]
IMAGES = {".svg", ".png", ".jpg"}
LANGUAGES = {".py": "python", ".sh": "sh", ".toml": "toml", ".json": "json", ".arch": "arch"}
LINK = re.compile(r'(?P<before>\]\(|\b(?:src|href)=")(?P<to>[^)"\s]+)')
CODE = re.compile(r"^(```+).*?^\1 *$|`[^`\n]+`", re.MULTILINE | re.DOTALL)


class Page(NamedTuple):
    """A page: its path in the repository, its path on the site, and its text in Markdown."""

    source: str
    place: str
    text: str


class Tree:
    """The pages by what they are the page of, and the pictures that they show."""

    def __init__(self, pages: list[Page]):
        self.pages = {page.source: page for page in pages}
        self.pictures: set[str] = set()
        self.added: dict[str, str] = {}  # what is on the site alone

    def add_link(self, source: str, place: str, words: str) -> None:
        """Adds a link below the title of a page, to a file that only the site has."""
        page = self.pages[source]
        target = posixpath.join(posixpath.dirname(source), place)
        self.added[target] = place
        link = f'\n\n<a class="md-button" href="{place}">{words}</a>\n\n'
        self.pages[source] = page._replace(text=page.text.replace("\n\n", link, 1))

    def write(self, folder: Path) -> None:
        """Writes all pages, and those of all files that they link to."""
        written = set[str]()
        while new := self.pages.keys() - written:
            for source in sorted(new):
                page = self.pages[source]
                write_file(folder / page.place, self.linked(page))
            written |= new
        for picture in self.pictures:
            write_file(folder / picture, (ROOT / picture).read_bytes())

    def linked(self, page: Page) -> str:
        """The text of a page, with links to pages of the site.

        As on GitHub, the first word behind ``` is the language, and `\\|` in a table is a `|`.
        """
        parts, at = list[str](), 0
        for code in CODE.finditer(page.text):
            block = re.sub(r"\A(```+[\w-]+) .*", r"\1", code[0])
            if not block.startswith("```"):
                block = block.replace("\\|", "|")
            parts += [self._linked(page, page.text[at : code.start()]), block]
            at = code.end()
        return "".join([*parts, self._linked(page, page.text[at:])])

    def _linked(self, page: Page, text: str) -> str:
        def replaced(link: re.Match[str]) -> str:
            to = urlsplit(link["to"])
            if to.scheme or not to.path:
                return link[0]
            target = posixpath.normpath(posixpath.join(posixpath.dirname(page.source), to.path))
            place = self.place(target, page.source)
            if link["before"] != "](":  # only links of Markdown are changed by the generator
                place = re.sub(r"\.md$", ".html", place)
            path = posixpath.relpath(place, posixpath.dirname(page.place) or ".")
            return link["before"] + path + (f"#{to.fragment}" if to.fragment else "")

        return LINK.sub(replaced, text)

    def place(self, target: str, by: str) -> str:
        """Where a path of the repository is on the site."""
        if target in self.pages:
            return self.pages[target].place
        if target in self.added:
            return self.added[target]
        path = ROOT / target
        if path.suffix in IMAGES:
            self.pictures.add(target)
            return target
        if path.is_dir() and (path / "README.md").exists():
            return self.place(f"{target}/README.md", by)
        if not path.exists():
            raise FileNotFoundError(f"{by} links to {target}")
        place = f"source/{target}" + ("/index.md" if path.is_dir() else ".md")
        self.pages[target] = Page(target, place.replace(".md.md", ".md"), _shown(path, target))
        return self.pages[target].place


def _shown(path: Path, target: str) -> str:
    """The page of a file or a folder that has no other page."""
    if path.is_dir():
        inside = sorted(each for each in path.iterdir() if not each.name.startswith(("_", ".")))
        lines = [f"- [{each.name}]({path.name}/{each.name})" for each in inside]
        return "\n".join([f"# {target}", "", *lines]) + "\n"
    if path.suffix == ".md":
        return path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        return "\n\n".join(_cells(json.loads(path.read_text(encoding="utf-8"))))
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return f"# {path.name}\n\n{path.stat().st_size:,} bytes.\n"
    language = LANGUAGES.get(path.suffix, "text")
    return f"# {path.name}\n\n`{target}`\n\n{fenced(text, language)}\n"


def fenced(text: str, language: str, more: str = "") -> str:
    """A block of code, whatever it has inside."""
    ticks = max(("```", *(each + "`" for each in re.findall(r"^```+", text, re.MULTILINE))))
    return f"{ticks}{language}{more}\n{text.rstrip()}\n{ticks}"


def raw(html: str) -> str:
    """HTML that Markdown leaves as it is; an empty line would end it."""
    return "<div>" + re.sub(r"\n\s*\n", "\n", html) + "</div>"


def _cells(notebook: dict[str, list[dict[str, object]]]) -> Iterator[str]:
    """The cells of a notebook, with the texts and pictures that they print."""
    for cell in notebook["cells"]:
        text = "".join(cell["source"])  # type: ignore[arg-type]
        if cell["cell_type"] == "markdown":
            yield text
            continue
        yield fenced(text, "python")
        for output in cell["outputs"]:  # type: ignore[attr-defined]
            data = output.get("data", {"text/plain": output.get("text", ())})
            if picture := data.get("image/svg+xml") or data.get("text/html"):
                yield raw("".join(picture))
            else:
                yield fenced("".join(data.get("text/plain", ())), "text")


def write_file(path: Path, content: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


# Of a built page: its anchors, and what the tags that link and load have inside.
ANCHOR = re.compile(r'<[^>]* (?:id|name)="([^"]*)"')
TAG = re.compile(r"<(a|link|script|img|source|iframe)\b([^>]*)>")
ADDRESS = re.compile(r'\b(?:href|src)="([^"]*)"')


def check(folder: Path) -> list[str]:
    """The links of the built pages that lead nowhere, and what they load from elsewhere."""
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*")}
    texts = {
        name: path.read_text(encoding="utf-8")
        for name, path in files.items()
        if path.suffix == ".html" and name != "404.html"
    }
    anchors = {name: set(ANCHOR.findall(text)) for name, text in texts.items()}
    return [
        f"{name}: {problem}"
        for name, text in sorted(texts.items())
        for problem in dict.fromkeys(_problems(name, text, files.keys(), anchors))
    ]


def _problems(
    name: str, text: str, files: Collection[str], anchors: Mapping[str, set[str]]
) -> Iterator[str]:
    for tag, inside in TAG.findall(text):
        for address in ADDRESS.findall(inside):
            to = urlsplit(unescape(address))
            if to.scheme or to.netloc:
                if tag != "a":
                    yield f"loads {address}"
                continue
            path = (
                posixpath.join(posixpath.dirname(name), unquote(to.path)) if to.path else name
            )
            target = posixpath.normpath(path)
            if target not in files:
                yield f"links to {address}, which is missing"
            elif to.fragment and unquote(to.fragment) not in anchors.get(target, ()):
                yield f"links to {address}, which has no such place"
