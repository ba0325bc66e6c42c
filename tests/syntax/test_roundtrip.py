"""Printing is the inverse of parsing, for trees, texts and comments."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from archdsl.syntax import ast
from archdsl.syntax.parser import grammar, parse
from archdsl.syntax.printer import expression, format, type_text
from archdsl.syntax.traversal import walk
from tests.suite import mostly_long
from tests.syntax.trees import SPAN, bodies, params, trees, types

CASES = Path(__file__).parents[1] / "cases" / "syntax"
SPECS = sorted((Path(__file__).parents[2] / "specs").glob("*.arch"))
EVERYTHING = CASES / "everything.arch"

each_text = pytest.mark.parametrize(
    "path", [*mostly_long(SPECS), EVERYTHING], ids=lambda path: path.stem
)
# Trees are large things to make; that this takes a moment is no fault.
made = settings(suppress_health_check=[HealthCheck.too_slow])

block = ast.Name(SPAN, "block_of_all")
blocks = st.builds(ast.Block, st.just(SPAN), st.just(block), params, types, bodies)


def same(tree: ast.File) -> None:
    text = format(tree)
    again = parse(text)
    # The trees, not their texts: what both printings forgot would not be missed.
    assert again == tree
    assert format(again) == text


@made
@given(trees)
def test_a_printed_tree_parses_to_itself(tree: ast.File) -> None:
    same(tree)


@made
@given(blocks)
def test_a_printed_block_parses_to_itself(block: ast.Block) -> None:
    same(ast.File(SPAN, (block,)))


@each_text
def test_a_formatted_text_stays_as_it_is(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert format(parse(text)) == text


@pytest.mark.parametrize("head", ["float pad", "float <", "float if"])
def test_a_tied_stack_before_an_equals_sign(head: str) -> None:
    text = f"model M() {{\n  output x: {head} (1 + a * b tied) = a\n}}\n"
    assert format(parse(text)) == text


def test_a_messy_text_has_one_form(golden: Callable[[str, str], None]) -> None:
    text = (CASES / "messy.arch").read_text(encoding="utf-8")
    formatted = format(parse(text))
    golden("syntax/messy.arch", formatted)
    same(parse(text))
    assert found(formatted) == found(text)


def test_everything_is_in_the_text_of_everything() -> None:
    nodes = list(walk(parse(EVERYTHING.read_text(encoding="utf-8"))))
    classes = {type(node) for node in nodes}
    named = {c for u in get_args(ast.Node) for c in (get_args(u) or (u,))}
    assert classes == named
    for cls, field in ((c, f.name) for c in classes for f in fields(c) if f.name != "span"):
        values = {repr(getattr(n, field)) for n in nodes if type(n) is cls}
        assert len(values) > 1 or cls is ast.File, f"{cls.__name__}.{field} is always the same"


def test_an_expression_stands_on_one_line_in_messages() -> None:
    item = parse("variant v = f(x: float[T,  2*D]<5 pad 0, over=(x->g)*2)").items[0]
    assert isinstance(item, ast.Variant)
    typed, over = item.call.args
    assert isinstance(typed.value, ast.Typed)
    assert not isinstance(over.value, ast.Typed)
    assert type_text(typed.value.type) == "float[T, 2 * D] < 5 pad 0"
    assert type_text(ast.BlockType(SPAN)) == "block"
    assert expression(over.value) == "(x -> g) * 2"


# -- comments at every place of a text --


def found(text: str) -> list[str]:
    """The comments of a text, in order."""
    return [m[0] for m in re.finditer(r'"[^"\n]*"|#[^\n]*', text) if m[0].startswith("#")]


def gaps(text: str, behind: bool) -> list[int]:
    """Every position where a comment may be: before or after each token."""
    tokens = list(grammar().parse_interactive(text).iter_parse())
    # A callee and its bracket must stay together.
    if behind:
        return [token.end_pos or 0 for token in tokens if token.type != "CALLEE"]
    called = {token.end_pos for token in tokens if token.type == "CALLEE"}
    return [token.start_pos or 0 for token in tokens if token.start_pos not in called]


def bare(node: Any) -> Any:
    """A tree without comments and blank lines."""
    if isinstance(node, tuple):
        return tuple(bare(each) for each in node)
    if not hasattr(node, "span"):
        return node
    changes = {f.name: bare(getattr(node, f.name)) for f in fields(node)}
    changes |= {"trivia": ast.PLAIN} if "trivia" in changes else {}
    return replace(node, **(changes | ({"closing": ()} if "closing" in changes else {})))


def commented(text: str, places: list[int]) -> str:
    """A text with a numbered comment at each of these positions."""
    pieces = itertools.pairwise([0, *places, len(text)])
    return "".join(
        text[a:b] + (f" # {i}\n" if i < len(places) else "") for i, (a, b) in enumerate(pieces)
    )


def survives(text: str, places: list[int]) -> None:
    spoken = commented(text, places)
    tree = parse(spoken)
    formatted = format(tree)
    assert bare(tree) == bare(parse(text))
    assert found(formatted) == found(spoken)
    same(tree)


@pytest.mark.few(4)
@each_text
@pytest.mark.parametrize("behind", [False, True])
def test_comments_in_all_places_at_once_survive(path: Path, behind: bool) -> None:
    text = path.read_text(encoding="utf-8")
    survives(text, gaps(text, behind))


@pytest.mark.few(2)
@pytest.mark.parametrize("apart", [2, 3, 13])
@pytest.mark.parametrize("behind", [False, True])
def test_comments_here_and_there_survive(apart: int, behind: bool) -> None:
    text = EVERYTHING.read_text(encoding="utf-8")
    places = gaps(text, behind)
    for start in range(apart):
        survives(text, places[start::apart])


@each_text
def test_empty_lines_collapse_to_one_and_survive(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert format(parse(text.replace("\n\n", "\n\n \t\n\n"))) == text
