"""Prints a random sample of the text that people read, for review.

    python -m tests.sample_prose --seed 7

draws ten paragraphs (half from the pages, half from docstrings and command help) and twenty
error messages (from tests/golden and docs/errors), each with its file and line.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import random
import re
import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

PAGES = ("*.md", "docs/**/*.md", "examples/*.md")


class Excerpt(NamedTuple):
    """A piece of text and its place."""

    place: str
    text: str


def pages(root: Path) -> Iterator[Excerpt]:
    """The paragraphs, list items and table rows of the pages, without code blocks."""
    for path in files(root, PAGES):
        text = path.read_text(encoding="utf-8")
        text = re.sub(r"^```.*?^```$", blank, text, flags=re.MULTILINE | re.DOTALL)
        text = re.sub(r"^(#.*|\| -.*)$", "", text, flags=re.MULTILINE)
        for match in re.finditer(
            r"(?:^(?!\n)(?:.|\n(?!\n|- |\d\. |\| ))+)", text, re.MULTILINE
        ):
            yield Excerpt(place(root, path, text, match.start()), match[0].strip())


def docstrings(root: Path) -> Iterator[Excerpt]:
    """The paragraphs of the docstrings, without examples."""
    for path, tree in modules(root):
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                name = path.stem if isinstance(node, ast.Module) else node.name
                line = 1 if isinstance(node, ast.Module) else node.lineno
                for paragraph in (ast.get_docstring(node) or "").split("\n\n"):
                    if paragraph.strip() and not paragraph.lstrip().startswith(">>>"):
                        where = f"{path.relative_to(root)}:{line} ({name})"
                        yield Excerpt(where, inspect.cleandoc(paragraph))


def help_texts(root: Path) -> Iterator[Excerpt]:
    """The help of the commands and their options."""
    for path, tree in modules(root):
        for node in ast.walk(tree):
            if path.parent.name == "cli" and isinstance(node, ast.Call):
                texts = [k.value for k in node.keywords if k.arg in ("help", "description")]
                if isinstance(node.func, ast.Name) and node.func.id == "command":
                    texts += node.args[2:3]
                for text in texts:
                    if isinstance(text, ast.Constant) and isinstance(text.value, str):
                        yield Excerpt(f"{path.relative_to(root)}:{text.lineno}", text.value)


def messages(root: Path) -> Iterator[Excerpt]:
    """The error messages that the expected texts and the pages of the codes show."""
    for path in files(root, ("tests/golden/**/*.txt", "docs/errors/*.md")):
        text = path.read_text(encoding="utf-8")
        for match in re.finditer(r"^.*\berror\[(?:.|\n(?!\n|```))*", text, re.MULTILINE):
            if "`error[" not in match[0]:
                yield Excerpt(place(root, path, text, match.start()), match[0].rstrip())


def files(root: Path, patterns: Iterable[str]) -> list[Path]:
    """The files that match one of the patterns, without hidden folders."""
    found = {path for pattern in patterns for path in root.glob(pattern)}
    return sorted(p for p in found if not any(s.startswith(".") for s in p.parts))


def modules(root: Path) -> Iterator[tuple[Path, ast.Module]]:
    """The sources of the package as trees."""
    for path in files(root, ("archdsl/**/*.py",)):
        yield path, ast.parse(path.read_text(encoding="utf-8"))


def place(root: Path, path: Path, text: str, start: int) -> str:
    """The file and line of a position."""
    return f"{path.relative_to(root)}:{text.count(chr(10), 0, start) + 1}"


def blank(match: re.Match[str]) -> str:
    """As many empty lines, so that line numbers stay."""
    return "\n" * match[0].count("\n")


def is_prose(excerpt: Excerpt) -> bool:
    """Whether the text has six words or more and few digits, unlike tables and signatures."""
    words = re.findall(r"\b[a-z]{2,}\b", excerpt.text)
    return len(words) >= 6 and len(re.findall(r"\d", excerpt.text)) < 2 * len(words)


def sample(root: Path, seed: int) -> str:
    """The sample as text."""
    rng = random.Random(seed)
    chosen = rng.sample([e for e in pages(root) if is_prose(e)], 5)
    texts = [*docstrings(root), *help_texts(root)]
    chosen += rng.sample([e for e in texts if is_prose(e)], 5)
    chosen += rng.sample([*messages(root)], 20)
    return "\n\n".join(f"{e.place}\n{textwrap.indent(e.text, '    ')}" for e in chosen)


def main() -> str:
    parser = argparse.ArgumentParser("python -m tests.sample_prose", description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--root", type=Path, default=Path(__file__).parents[1])
    args = parser.parse_args()
    return sample(args.root.resolve(), args.seed)


if __name__ == "__main__":
    print(main())
