"""The messages of the semantics, from spec files.

A file of tests/cases/semantics marks each line with a mistake by its code, `# error: code`, or
`# error: code in blocks.arch` if the place of the message is in that file of the standard
library. The whole text of the diagnostics is in tests/golden.
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

# Codes of running models, which have no text.
RUNNING = {"limit", "input", "checkpoint", "device", "tokenizer", "generation", "overflow"}

Golden = Callable[[str, str], None]


@pytest.fixture(autouse=True)
def _among_the_cases(monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages show paths as they are given, so the tests give them relative to this folder."""
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
    """The mark of a diagnostic: its place or, if that is in the library, the call."""
    assert diagnostic.span is not None
    path = diagnostic.span.source.path
    if not path.startswith(str(standard_library())):
        return path, diagnostic.span.line, diagnostic.code
    call = diagnostic.notes[-1].span
    assert call is not None
    return call.source.path, call.line, f"{diagnostic.code} in {Path(path).name}"


def text(diagnostics: list[Diagnostic] | tuple[Diagnostic, ...]) -> str:
    """The messages with a short name for the folder of the library."""
    whole = "\n\n".join(d.render() for d in diagnostics) + "\n"
    return whole.replace(str(standard_library()), "specs")


@pytest.mark.parametrize("name", FILES)
def test_each_mistake_is_reported_once(name: str) -> None:
    found = Counter(place(d) for d in archdsl.check(f"{name}.arch"))
    expected = marks(f"{name}.arch")
    assert found - expected == Counter(), "reported and not marked"
    assert expected - found == Counter(), "marked and not reported"


@pytest.mark.parametrize("name", FILES)
def test_the_messages_of_a_file(name: str, golden: Golden) -> None:
    golden(f"semantics/{name}.txt", text(archdsl.check(f"{name}.arch")))


def test_every_code_has_a_case() -> None:
    found = {code.split()[0] for name in FILES for _, _, code in marks(f"{name}.arch")}
    assert found | RUNNING == set(CODES)
    assert not found & RUNNING


def test_mistakes_are_sorted_by_place() -> None:
    lines = [d.span.line for d in archdsl.check("arguments.arch") if d.span]
    assert lines == sorted(lines)


def test_each_map_with_a_mistake_in_some_layer_is_refused() -> None:
    file = tree(read("weight_copies.arch"))
    maps = [item for item in file.items if isinstance(item, ast.Weights)]
    models = tuple(item for item in file.items if isinstance(item, ast.Model))
    for each in maps:
        found = archdsl.check(replace(file, items=(*models, each)))
        assert [d.code for d in found] == ["weights-map"], each.title.value
    assert len(maps) == 6


# -- mistakes outside of a text --

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
    "computed": lambda: analyse("settings.arch:Turned", settings={"size": 5}),
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


def test_a_file_that_is_not_text(tmp_path: Path) -> None:
    path = tmp_path / "latin.arch"
    path.write_bytes(b"# caf\xe9\n")
    (found,) = archdsl.check(str(path))
    assert (found.code, found.message) == (
        "file",
        f"`{path}` cannot be read: it is not UTF-8 text",
    )
