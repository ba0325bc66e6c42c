"""The messages about texts that cannot be parsed."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from archdsl.diagnostics import ArchError, Diagnostic
from archdsl.syntax.parser import grammar, parse

CASES = Path(__file__).parents[1] / "cases" / "syntax"
MISTAKEN = ["expressions", "heads", "open", "statements"]


def mistakes(text: str, path: str = "a.arch") -> tuple[Diagnostic, ...]:
    with pytest.raises(ArchError) as caught:
        parse(text, path)
    return caught.value.diagnostics


@pytest.mark.parametrize("name", MISTAKEN)
def test_the_messages_of_a_file(name: str, golden: Callable[[str, str], None]) -> None:
    text = (CASES / f"{name}.arch").read_text(encoding="utf-8")
    found = mistakes(text, f"{name}.arch")
    golden(f"syntax/{name}.txt", "\n\n".join(each.render() for each in found) + "\n")
    terminals = {terminal.name for terminal in grammar().terminals}
    for each in found:
        shown = f"{each.message} {each.expected} {each.help}"
        assert not terminals & set(re.findall(r"[A-Z_$][A-Z_0-9]+", shown))


def test_each_item_has_a_message() -> None:
    items = (CASES / "statements.arch").read_text(encoding="utf-8").count("\nmodel ")
    assert len(mistakes((CASES / "statements.arch").read_text(encoding="utf-8"))) == items


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("use", 'the text ends too early: a "string"'),
        ("use\n# nothing more\n", 'the text ends too early: a "string"'),
        ("variant xl =", "the text ends too early: a name followed directly by `(`"),
        ("variant xl", "the text ends too early: `=`"),
        ('weights "x" for', "the text ends too early: a name"),
        ("block f(x: float[T", "`[` is never closed: None"),
        ("model A() {", "`{` is never closed: None"),
        ("model A() { h = f(", "`(` is never closed: None"),
        ("model A() { h = f(} )", "unexpected `}`: an expression or `)`"),
        ("}", "`}` has no opening bracket: None"),
        ('use "a', 'the string is not closed on its line: a "string"'),
        ('use "', 'the string is not closed on its line: a "string"'),
        ('use "a\n"', 'the string is not closed on its line: a "string"'),
        (
            'use "a" "b\tc"',
            'unexpected `"b\tc"`: `use`, `block`, `model`, … or the end of the file',
        ),
        ('use \0"a"', 'unexpected character U+0000, control character: a "string"'),
        ('use\u00a0"a"', 'unexpected character U+00A0, no-break space: a "string"'),
        ('use\u200b"a"', 'unexpected character U+200B, zero width space: a "string"'),
        ("use\ud800", 'unexpected character U+D800, control character: a "string"'),
        (
            "modelA() {}",
            "unexpected `modelA`: `use`, `block`, `model`, … or the end of the file",
        ),
    ],
)
def test_the_message(text: str, expected: str) -> None:
    (found,) = mistakes(text)
    assert f"{found.message}: {found.expected}" == expected
    assert found.code == "syntax"


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        ("9" * 31, "the number is too large"),
        ("9" * 5000, "the number is too large"),
        ("1e999", "the number is too large"),
        ("9" * 5000 + ".5", "the number is too large"),
    ],
)
def test_a_number_is_bounded(number: str, expected: str) -> None:
    (found,) = mistakes(f"variant v = f({number})")
    assert (found.code, found.message) == ("arithmetic", expected)
    assert found.span is not None
    assert found.span.text == number


def test_a_number_in_a_path_is_bounded() -> None:
    (found,) = mistakes(f'weights "w" for M {{ h.{"9" * 31}.* = b.* }}')
    assert (found.code, found.message) == ("arithmetic", "the number is too large")


def test_reserved_words_are_all_told() -> None:
    found = mistakes("block f(pad, model: block) {\n  for(True) * pad\n}")
    assert [each.message for each in found] == [
        "`pad` is a keyword and cannot be a name",
        "`model` is a keyword and cannot be a name",
        "unexpected `for`",
        "unexpected `True`",
        "`pad` is a keyword and cannot be a name",
    ]


def test_a_reserved_word_is_told_before_what_it_leads_to() -> None:
    (found,) = mistakes("block f(pad) {\n  x = = 3\n}")
    assert found.message == "`pad` is a keyword and cannot be a name"
