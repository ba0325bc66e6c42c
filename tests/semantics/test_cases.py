"""What a user is told: every message of the semantics, whole, from files of language.

A file of tests/cases/semantics marks each line that has a mistake with the code that is
told there, `# error: code`, and `# error: code in blocks.arch` where the place told is in
that file of the standard library. The whole text of the diagnostics is in tests/golden.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import archdsl
from archdsl.analysis import analyse
from archdsl.diagnostics import CODES, ArchError, Diagnostic
from archdsl.semantics.library import read, standard_library, tree
from archdsl.syntax import ast

CASES = Path(__file__).parent.parent / "cases" / "semantics"
FILES = sorted(path.stem for path in CASES.glob("*.arch"))
MARK = re.compile(r"# error: (.+)")

# Told of what runs, and not of a text.
RUNNING = {"input", "checkpoint", "device", "tokenizer", "generation"}

Golden = Callable[[str, str], None]


@pytest.fixture(autouse=True)
def _among_the_cases(monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths are told as they are given, so they are given from here."""
    monkeypatch.chdir(CASES)


def marks(path: str) -> Counter[tuple[str, int, str]]:
    """The codes marked in a file, and in the folder that it uses, by path and line."""
    text = Path(path).read_text("utf-8")
    found: Counter[tuple[str, int, str]] = Counter()
    for number, line in enumerate(text.split("\n"), 1):
        if mark := MARK.search(line):
            found.update((path, number, code) for code in mark[1].split(", "))
    if 'use "used/' in text:
        for used in sorted(Path("used").glob("*.arch")):
            found += marks(str(used))
    return found


def place(diagnostic: Diagnostic) -> tuple[str, int, str]:
    """Where a diagnostic is marked: at its place or, if that is in the library, at the call."""
    assert diagnostic.span is not None
    path = diagnostic.span.source.path
    if not path.startswith(str(standard_library())):
        return path, diagnostic.span.line, diagnostic.code
    call = diagnostic.notes[-1].span
    assert call is not None
    return call.source.path, call.line, f"{diagnostic.code} in {Path(path).name}"


def text(diagnostics: list[Diagnostic] | tuple[Diagnostic, ...]) -> str:
    """The messages as a user reads them, the library's folder by its short name."""
    whole = "\n\n".join(d.render() for d in diagnostics) + "\n"
    return whole.replace(str(standard_library()), "specs")


@pytest.mark.parametrize("name", FILES)
def test_each_mistake_is_told_once(name: str) -> None:
    found = Counter(place(d) for d in archdsl.check(f"{name}.arch"))
    expected = marks(f"{name}.arch")
    assert found - expected == Counter(), "told and not marked"
    assert expected - found == Counter(), "marked and not told"


@pytest.mark.parametrize("name", FILES)
def test_the_messages_of_a_file(name: str, golden: Golden) -> None:
    golden(f"semantics/{name}.txt", text(archdsl.check(f"{name}.arch")))


def test_every_code_has_a_case() -> None:
    told = {code.split()[0] for name in FILES for _, _, code in marks(f"{name}.arch")}
    assert told | RUNNING == set(CODES)
    assert not told & RUNNING


def test_mistakes_are_told_in_the_order_of_the_text() -> None:
    lines = [d.span.line for d in archdsl.check("arguments.arch") if d.span]
    assert lines == sorted(lines)


def test_each_map_that_is_wrong_in_some_copy_is_refused_by_itself() -> None:
    file = tree(read("weight_copies.arch"))
    maps = [item for item in file.items if isinstance(item, ast.Weights)]
    models = tuple(item for item in file.items if isinstance(item, ast.Model))
    for each in maps:
        told = archdsl.check(replace(file, items=(*models, each)))
        assert [d.code for d in told] == ["weights-map"], each.title.value
    assert len(maps) == 6


# -- mistakes that stand in no text --

GPT = "gpt.arch"
OUTSIDE: dict[str, Callable[[], object]] = {
    "unknown_setting": lambda: analyse(GPT, settings={"dept": 2}),
    "several_settings": lambda: analyse(GPT, settings={"dept": 2, "depth": 0.5, "D": "wide"}),
    "fraction_for_whole": lambda: analyse(GPT, settings={"depth": 1.5}),
    "truth_for_whole": lambda: analyse(GPT, settings={"depth": True}),
    "word_for_whole": lambda: analyse(GPT, settings={"depth": "twelve"}),
    "nothing": lambda: analyse(GPT, settings={"depth": None}),  # type: ignore[dict-item]
    "not_a_number": lambda: analyse("vaswani2017.arch", settings={"rate": float("nan")}),
    "beyond_all_use": lambda: analyse(GPT, settings={"D": 10**31}),
    "zero": lambda: analyse(GPT, settings={"context": 0}),
    "heads": lambda: analyse(GPT, settings={"heads": 5}),
    "choice": lambda: analyse("settings.arch:Chosen", settings={"act": "rellu"}),
    "number_for_truth": lambda: analyse("settings.arch:Chosen", settings={"bias": 1}),
    "number_for_choice": lambda: analyse("settings.arch:Chosen", settings={"act": 3}),
    "number_for_string": lambda: analyse("settings.arch:Chosen", settings={"pattern": 3}),
    "required": lambda: analyse("settings.arch:Required"),
    "no_file": lambda: analyse("gtp.arch"),
    "no_file_like_it": lambda: analyse("/nowhere/at_all.arch"),
    "folder": lambda: analyse("used"),
    "several_models": lambda: analyse("settings.arch"),
    "no_model": lambda: analyse("blocks.arch"),
    "no_variant": lambda: analyse("vaswani2017.arch:large"),
    "no_variant_at_all": lambda: analyse("gpt.arch:xl"),
}


@pytest.mark.parametrize("name", OUTSIDE)
def test_mistakes_from_outside(name: str, golden: Golden) -> None:
    with pytest.raises(ArchError) as raised:
        OUTSIDE[name]()
    golden(f"semantics/outside/{name}.txt", text(raised.value.diagnostics))


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "latin.arch"
    path.write_bytes(b"# caf\xe9\n")
    (told,) = archdsl.check(str(path))
    assert (told.code, told.message) == (
        "file",
        f"`{path}` cannot be read: it is not UTF-8 text",
    )
