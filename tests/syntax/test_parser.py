"""The parser: accepted texts, spans, and a result for any text."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archdsl.diagnostics import ArchError
from archdsl.syntax import ast
from archdsl.syntax.parser import grammar, parse
from archdsl.syntax.printer import expression, format
from archdsl.syntax.traversal import walk

SPECS = Path(__file__).parents[2] / "specs"
GPT = (SPECS / "gpt.arch").read_text(encoding="utf-8")


def value(text: str) -> ast.Expr:
    (item,) = parse(f"block f() {{\n  x = {text}\n}}").items
    assert isinstance(item, ast.Block)
    (edge,) = item.body.statements
    assert isinstance(edge, ast.Edge)
    return edge.value


def test_the_grammar_has_no_ambiguity() -> None:
    pytest.importorskip("interegular", reason="Lark's strict mode reads expressions with it")
    grammar(strict=True)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("a + b - c", "(a + b) - c"),
        ("a - b + c * d / e // f", "(a - b) + (((c * d) / e) // f)"),
        ("-a * b", "(-a) * b"),
        ("a - -b", "a - (-b)"),
        ("a -> b + c -> d", "a -> (b + c) -> d"),
        ("a -> h: b * n", "a -> (h: (b * n))"),
        ("a -> { b -> c } * n", "a -> ({ b -> c } * n)"),
        ("x + 1 < y | z", "(x + 1) < (y | z)"),
        ("a == b and not c or d < e and f", "((a == b) and (not c)) or ((d < e) and f)"),
        ("h: a < b", None),
        ("f (x)", None),
    ],
)
def test_how_tightly_operators_bind(text: str, meant: str | None) -> None:
    if meant is None:
        with pytest.raises(ArchError):
            value(text)
    else:
        assert value(text) == value(meant)


@pytest.mark.parametrize(
    "text",
    ["a", "a - (b - c)", "(a + b) * c", "-(a + b)", "--a", "(a -> b) + c", "a / (b * c)"],
)
def test_brackets_stay_where_they_matter(text: str) -> None:
    assert expression(value(text)) == text


def test_a_bracket_on_a_new_line_begins_a_statement() -> None:
    (item,) = parse("block f(x: float) {\n  a = x\n  (a)\n}").items
    assert isinstance(item, ast.Block)
    assert [type(s) for s in item.body.statements] == [ast.Edge, ast.Result]


def test_words_that_begin_like_keywords_are_names() -> None:
    text = "variant variants = model_x(inputs, format, pads, floaty, trueish)\n"
    assert format(parse(text)) == text


def test_spans_are_the_text_of_their_nodes() -> None:
    for node in walk(parse(GPT)):
        match node:
            case ast.Name():
                assert node.span.text == node.id
            case ast.Call():
                assert node.span.text.startswith(node.callee.id + "(")
                assert node.span.text.endswith(")")
            case ast.Model():
                assert node.span.text.startswith("model GPT(")
                assert node.span.text.endswith("}")
            case ast.Step():
                assert not node.span.text.startswith("->")


def test_spans_do_not_count_when_trees_are_compared() -> None:
    assert parse("use    'a'".replace("'", '"')) == parse('use "a"')


@pytest.mark.parametrize(
    "text",
    [
        GPT.replace("\n", "\r\n"),
        GPT.replace("\n", "\r"),
        "\ufeff" + GPT,
        GPT.replace("  ", "\t"),
        GPT.rstrip("\n"),
        "\n\n" + GPT + "\n\n",
        GPT.replace("\n", " \n"),
    ],
    ids=["CRLF", "CR", "BOM", "tabs", "no end of line", "empty lines", "spaces"],
)
def test_the_same_text_in_other_files(text: str) -> None:
    assert parse(text) == parse(GPT)
    assert format(parse(text)) == GPT


def test_a_place_is_counted_in_lines_whatever_ends_them() -> None:
    with pytest.raises(ArchError) as caught:
        parse('\ufeffuse "a"\r\nuse b\r\n', "a.arch")
    (found,) = caught.value.diagnostics
    assert found.span is not None
    assert found.span.place == "a.arch:2:5"


@pytest.mark.parametrize("text", ["", "\n", " \t\r\n", "# a comment", "# one\n\n\n# two\n"])
def test_a_file_may_have_nothing_in_it(text: str) -> None:
    tree = parse(text)
    assert tree.items == ()
    assert parse(format(tree)) == tree


@pytest.mark.parametrize(
    "text",
    [
        "(" * 4_000 + "x" + ")" * 4_000,
        "x" + " -> f" * 2_000,
        "f(" + "x, " * 2_000 + ")",
        " + ".join("x" * 90),
    ],
    ids=["brackets", "steps", "arguments", "summands"],
)
def test_what_is_long_but_not_deep_is_read(text: str) -> None:
    assert value(text) == value(expression(value(text)))


@pytest.mark.few(4)
@pytest.mark.parametrize(
    "text",
    [
        "{" * 4_000 + "x" + "}" * 4_000,
        "f(" * 4_000 + "x" + ")" * 4_000,
        "-" * 4_000 + "x",
        "x" + " + x" * 4_000,
        "x" + " + x" * 110,
        "x" + " * (x" * 4_000 + ")" * 4_000,
        "(a -> " * 4_000 + "x" + ")" * 4_000,
    ],
    ids=["braces", "calls", "signs", "summands", "some summands", "factors", "chains"],
)
def test_what_is_too_deep_is_told(text: str) -> None:
    with pytest.raises(ArchError) as caught:
        value(text)
    (found,) = caught.value.diagnostics
    assert found.message == "this is nested too deeply"


@pytest.mark.parametrize("text", ["(" * 4_000, "{" * 4_000, "f(" * 4_000, "x -> " * 2_000])
def test_what_is_deep_and_wrong_is_told(text: str) -> None:
    with pytest.raises(ArchError):
        value(text)


@given(st.text())
def test_any_text_is_answered(text: str) -> None:
    with contextlib.suppress(ArchError):
        parse(format(parse(text)))


@given(st.lists(st.sampled_from(sorted({*GPT.split(), *GPT, '"', "model", "2D", "1_"}))))
def test_any_words_are_answered(words: list[str]) -> None:
    with contextlib.suppress(ArchError):
        tree = parse(" ".join(words))
        assert parse(format(tree)) == tree


@pytest.mark.few(1)
@pytest.mark.parametrize("kept", [b"", b"not a pickle", None])
def test_tables_that_cannot_be_kept_or_read_are_made_anew(
    kept: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "archdsl"
    if kept is None:
        folder.write_bytes(b"")  # no folder, and none can be made in its place
    else:
        folder.mkdir()
        (folder / f"grammar-{sys.implementation.cache_tag}").write_bytes(kept)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for _ in range(2):  # of its own making the second time
        grammar.cache_clear()
        assert value("2 * n") == value("2  *  n")
