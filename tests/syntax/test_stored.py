"""Cached trees are equal to parsed ones, including their spans."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import archdsl
from archdsl.diagnostics import ArchError, Source, Span
from archdsl.frozen import Frozen
from archdsl.semantics.library import standard_library
from archdsl.syntax import parser, stored
from archdsl.syntax.stored import tree_of
from tests.suite import mostly_long

TEXT = """\
# A comment.
use "blocks.arch"  # of the library

model Tiny(vocab = 5) {
  input tokens: int[T <= 4] < vocab  # behind it
  output logits: float[T, vocab] = tokens -> embed(vocab, 8) -> pre_norm(relu) -> linear(vocab)
}
"""


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ARCHDSL_TREES", "1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "archdsl" / "trees"


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths of the parsed files."""
    found: list[str] = []
    parse = parser.parse

    def noticed(text: str, path: str = "<text>") -> Any:
        found.append(path)
        return parse(text, path)

    monkeypatch.setattr(parser, "parse", noticed)
    return found


def parts(value: Any) -> object:
    """A tree with its spans, which equality ignores."""
    if isinstance(value, Span):
        return value.source, value.start, value.end
    if isinstance(value, Frozen):
        return type(value).__name__, [parts(part) for part in vars(value).values()]
    return [parts(part) for part in value] if isinstance(value, tuple) else value


@pytest.mark.parametrize(
    "path", mostly_long(sorted(standard_library().glob("*.arch"))), ids=lambda p: p.name
)
def test_a_stored_tree_is_the_parsers(path: Path, parsed: list[str]) -> None:
    source = Source(str(path), path.read_text(encoding="utf-8"))
    first, second = tree_of(source), tree_of(source)
    assert parts(first) == parts(second)
    assert first == second
    assert parsed == [str(path)]


def test_another_text_or_path_is_another_tree(parsed: list[str]) -> None:
    for path, text in (("a", TEXT), ("b", TEXT), ("a", TEXT + "\n"), ("a", TEXT)):
        assert tree_of(Source(path, text)).span.source == Source(path, text)
    assert parsed == ["a", "b", "a"]


def test_another_version_is_another_tree(
    parsed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tree_of(Source("a", TEXT))
    monkeypatch.setattr(stored, "_version", lambda: "another")
    tree_of(Source("a", TEXT))
    assert parsed == ["a", "a"]


def test_a_damaged_tree_is_parsed_again(store: Path, parsed: list[str]) -> None:
    right = tree_of(Source("a", TEXT))
    (path,) = store.iterdir()
    data = path.read_bytes()
    for place in range(0, len(data), 97):
        path.write_bytes(data[:place] + bytes([data[place] ^ 255]) + data[place + 1 :])
        assert tree_of(Source("a", TEXT)) == right
        assert path.read_bytes() == data
    assert len(parsed) == 1 + len(range(0, len(data), 97))


def test_mistakes_are_told_each_time(store: Path) -> None:
    for _ in range(2):
        with pytest.raises(ArchError, match="a:1"):
            tree_of(Source("a", "model {"))
    assert not store.exists()


def test_it_can_be_turned_off(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARCHDSL_TREES", "0")
    tree_of(Source("a", TEXT))
    assert not store.exists()


def test_a_second_check_imports_no_parser(tmp_path: Path) -> None:
    script = """
import sys
from archdsl.cli import main
assert main(["check", "gpt.arch"]) == 0
print({"lark", "numpy", "tinygrad"} & set(sys.modules))
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(archdsl.__file__).parents[1])}
    command = [sys.executable, "-c", script]
    runs = [
        subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
        for _ in range(2)
    ]
    assert [run.stdout.splitlines()[-1] for run in runs] == ["{'lark'}", "set()"]
    assert runs[0].stdout.splitlines()[:-1] == runs[1].stdout.splitlines()[:-1]
