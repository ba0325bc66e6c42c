"""Builds the site: `python -m docs.site`.

Warnings of the generator and links that lead nowhere are errors.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from importlib.resources import files
from pathlib import Path

from docs.site import gallery, lexer, reference, specs
from docs.site.links import ROOT, Page, Tree, check, write_file

HERE = Path(__file__).parent
BUILD = ROOT / "build" / "site"
# The parts of the site. Pages that no part names stand in the last one.
NAVIGATION = {
    "Learn": [
        "docs/index.md",
        "tutorial.md",
        "language.md",
        "coming_from.md",
        "source/examples/tour.ipynb.md",
    ],
    "Gallery": [],
    "Use": [
        "training.md",
        "figures.md",
        "playground.md",
        "inner_values.md",
        "editors.md",
        "agents.md",
        "audit.md",
    ],
    "Reference": [
        "reference/operators.md",
        "reference/commands.md",
        "reference/python.md",
        "zoo.md",
    ],
    "Errors": [],
    "Inside": [
        "how_it_works.md",
        "extending.md",
        "kernels.md",
        "performance.md",
        "contributing.md",
        "changelog.md",
    ],
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m docs.site", description=__doc__)
    parser.add_argument(
        "--playground",
        metavar="FOLDER",
        type=Path,
        help="include the playground that `python -m archdsl.play.build FOLDER` wrote",
    )
    playground = parser.parse_args().playground
    start = time.perf_counter()
    shutil.rmtree(BUILD, ignore_errors=True)
    count = write(BUILD / "pages", playground)
    print(f"{count} pages written in {time.perf_counter() - start:.1f} s")
    problems = generate(BUILD) or check(BUILD / "html")
    print(f"site built in {time.perf_counter() - start:.1f} s: {BUILD / 'html' / 'index.html'}")
    if playground is None:
        print("without the playground, which needs Node and npm: --playground adds it")
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    return 1 if problems else 0


def write(folder: Path, playground: Path | None = None) -> int:
    """Writes the sources of all pages, and returns how many there are."""
    with ProcessPoolExecutor() as pool:
        found = list(pool.map(specs.spec, specs.files()))
        pages = [*texts(), *gallery.pages(found, pool), *reference.pages(found)]
    tree = Tree(pages)
    if playground:
        shutil.copytree(playground, folder / "playground")
        tree.add_link("docs/playground.md", "playground/index.html", "Open the playground")
    tree.write(folder)
    for asset in ("figure.js", "figure.css"):
        content = files("archdsl.figure").joinpath("assets", asset).read_bytes()
        write_file(folder / "assets" / asset, content)
    for asset in ("site.js", "site.css"):
        write_file(folder / "assets" / asset, (HERE / asset).read_bytes())
    titles = {page.place: title(page) for page in tree.pages.values()}
    config = (HERE / "zensical.toml").read_text(encoding="utf-8")
    nav = f"nav = {toml(navigation(titles))}"
    (folder.parent / "zensical.toml").write_text(
        config.replace("[project]", f"[project]\n{nav}", 1), encoding="utf-8"
    )
    return len(titles)


def texts() -> list[Page]:
    """The pages that people write."""
    written = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "docs/*.md", "docs/errors/*.md")
    return [_text(path) for each in written for path in sorted(ROOT.glob(each))]


def _text(path: Path) -> Page:
    source = path.relative_to(ROOT).as_posix()
    place = source.lower().replace("readme.md", "index.md")
    if place != "docs/index.md":  # the first page is that of the README above
        place = place.removeprefix("docs/")
    return Page(source, place, path.read_text(encoding="utf-8"))


def title(page: Page) -> str:
    heading = re.search(r"^# (.+)$", page.text, re.MULTILINE)
    return heading[1] if heading else page.source


def navigation(pages: dict[str, str]) -> list[dict[str, object]]:
    """The parts with their pages; the titles are those of the pages."""
    parts = {name: list(places) for name, places in NAVIGATION.items()}
    named = {"index.md", *(place for places in parts.values() for place in places)}
    for place in sorted(pages.keys() - named):
        folder = place.partition("/")[0].capitalize()
        if folder in parts:
            parts[folder].append(place)
        elif folder != "Source":
            parts["Inside"].append(place)
    found: list[dict[str, object]] = [{"Home": "index.md"}]
    for name, places in parts.items():
        if name == "Gallery":
            places.sort(key=lambda place: pages[place].lower())
        places.sort(key=lambda place: not place.endswith("/index.md"))  # the overview first
        found.append({name: [{pages[place]: place} for place in places]})
    return found


def toml(value: object) -> str:
    """Strings, lists and tables in one line.

    >>> toml([{"Home": "index.md"}])
    '[{"Home" = "index.md"}]'
    """
    match value:
        case dict():
            inside = ", ".join(f"{toml(key)} = {toml(each)}" for key, each in value.items())
            return f"{{{inside}}}"
        case list():
            return f"[{', '.join(map(toml, value))}]"
        case _:
            return json.dumps(value, ensure_ascii=False)


def generate(folder: Path) -> list[str]:
    """Runs the generator, which prints its warnings; returns what is wrong in one line."""
    from zensical.main import cli  # the extra `site`

    lexer.register()
    config = str(folder / "zensical.toml")
    try:
        cli(["build", "--strict", "--config-file", config], standalone_mode=False)
    except RuntimeError as error:
        return [str(error)]
    return []


if __name__ == "__main__":
    sys.exit(main())
