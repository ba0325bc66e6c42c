"""Trees for hypothesis: all classes and fields of ast.py, with comments in all slots."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from archdsl.diagnostics import Source, Span
from archdsl.syntax import ast
from archdsl.syntax.comments import needs_blank_line

SPAN = Span(Source("<tree>", ""), 0, 0)


def _node(cls: Callable[..., Any], *fields: st.SearchStrategy[Any], **more: Any) -> Any:
    return st.builds(cls, st.just(SPAN), *fields, **more)


def _or_none(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | strategy


def _many(strategy: st.SearchStrategy[Any], least: int = 0) -> st.SearchStrategy[Any]:
    return st.lists(strategy, min_size=least, max_size=3).map(tuple)


# -- leaves --

# Chosen, not made: hypothesis is slow at regular expressions. Some begin like keywords.
words = st.sampled_from(["x", "T", "D", "_", "heads", "modelA", "padded", "e5", "attention_2"])
names = _node(ast.Name, words)
strings = _node(ast.String, st.sampled_from(["", "blocks.arch", "# é", "//", "a b"]))
integers = st.sampled_from(["0", "7", "007", "1_000", "50257"])
floats = st.sampled_from(["0.5", "1e5", "2.5E-3", "1_0.0e+3"])
atoms = (
    names
    | strings
    | _node(ast.Int, integers)
    | _node(ast.Float, floats)
    | _node(ast.Bool, st.booleans())
)
patterns = ["h", "h.{i}.*", "0.weight", "*", "encoder/layer-{n}.b", "ignored", "model.{i}x"]
patterns += ["a.{q,k,v}.*", "a.{0,q.x}.*", "iffy", "defaults", "configs.x", "x-"]
patterns += ["h.{2 * i + 1}.w", "{i // 6}.{i % 6}", "include.x"]
paths = _node(ast.Path, st.sampled_from(patterns))

# -- comments --

comments = st.sampled_from(["#", "# a", "#b, (", '# c " é', "# d # e", "#  x -> f"])


@st.composite
def comment_lines(draw: st.DrawFn, below: bool, above: bool) -> tuple[str, ...]:
    """Comments with some blank lines between, above and below them."""
    found = draw(st.lists(comments, max_size=2))
    lines = [""] if found and above and draw(st.booleans()) else []
    for i, comment in enumerate(found):
        lines.append(comment)
        if (below or i + 1 < len(found)) and draw(st.booleans()):
            lines.append("")
    return tuple(lines)


# Half of all nodes have none, so that some lines stay whole.
trivia = st.just(ast.PLAIN) | st.builds(
    ast.Trivia, st.just(False), comment_lines(below=True, above=False), _or_none(comments)
)


@st.composite
def closed(draw: st.DrawFn, node: st.SearchStrategy[Any], listed: str) -> Any:
    """A node with comments before its closing bracket."""
    made = draw(node)
    above = bool(getattr(made, listed))
    return replace(made, closing=draw(comment_lines(below=False, above=above)))


def _whole(node: Any) -> Any:
    """The node; a chain that is its whole value has no comments at its ends."""
    field = "default" if isinstance(node, ast.Param | ast.Input) else "value"
    chain = getattr(node, field)
    if not isinstance(chain, ast.Chain):
        return node
    first, *_, last = steps = list(chain.steps)
    steps[-1] = replace(last, trivia=replace(last.trivia, trailing=None))
    if isinstance(node, ast.Result) or (isinstance(node, ast.Arg) and not node.name):
        steps[0] = replace(first, trivia=replace(first.trivia, leading=()))
    return replace(node, **{field: replace(chain, steps=tuple(steps))})


# -- expressions --

labels = names | _node(ast.Name, st.sampled_from(["a.b", "h.attention.q"]))


comparisons = st.sampled_from(["==", "!=", "<=", ">=", "<", ">"])


def _expressions(trivia: st.SearchStrategy[ast.Trivia], commented: bool) -> Any:
    def larger(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        steps = _node(ast.Step, inner, trivia)
        args = _node(ast.Arg, _or_none(names), inner | typed, trivia).map(_whole)
        calls = _node(ast.Call, names, _many(args))
        lambdas = _node(ast.Lambda, _many(steps, 1))
        if commented:
            calls, lambdas = closed(calls, "args"), closed(lambdas, "steps")
        several = _node(
            ast.Several, _many(_node(ast.Arg, st.none(), inner, trivia).map(_whole), 2)
        )
        if commented:
            several = closed(several, "args")
        operators = st.sampled_from(["+", "-", "*", "/", "//", "%", "&", "|", "and", "or"])
        return st.one_of(
            calls,
            lambdas,
            several,
            _node(ast.Chain, _many(steps, 2)),
            _node(ast.Labeled, labels, inner),
            _node(ast.When, inner, inner, _or_none(inner)),
            _node(ast.Negate, inner),
            _node(ast.Not, inner),
            _node(ast.Binary, inner, operators, inner),
            _node(ast.Compare, inner, comparisons, inner),
            # A tied one need not have a number, but one of both is there.
            _node(ast.Repeat, inner, inner, st.just(True), _or_none(names)),
            _node(ast.Repeat, inner, inner, st.booleans(), names),
        )

    typed = _node(ast.Typed, names, st.deferred(lambda: types))
    return st.recursive(atoms, larger, max_leaves=8)


plain: Any = _expressions(st.just(ast.PLAIN), commented=False)
types = _node(
    ast.Type,
    st.sampled_from(["float", "int", "bool"]),
    _many(
        _node(ast.Axis, plain, _or_none(plain))
        | _node(ast.Axis, plain, plain, plain)
        | _node(ast.Axis, _node(ast.Name, st.just(ast.REST)), st.none())
    ),
    _or_none(plain),
    _or_none(plain),
)
several_types = _node(ast.Types, _many(types, 2))
expressions: Any = _expressions(trivia, commented=True)
calls = closed(
    _node(
        ast.Call, names, _many(_node(ast.Arg, _or_none(names), expressions, trivia).map(_whole))
    ),
    "args",
)

# -- statements and items --


def _apart(nodes: list[Any], blanks: list[bool]) -> tuple[Any, ...]:
    """Siblings with optional blank lines between them."""
    separated = nodes[:1]
    for before, node, blank in zip(nodes, nodes[1:], blanks, strict=False):
        blank = blank and not needs_blank_line(before, node)
        separated.append(replace(node, trivia=replace(node.trivia, blank=blank)))
    return tuple(separated)


def _stacked(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    flags = st.lists(st.booleans(), min_size=3, max_size=3)
    return st.builds(_apart, st.lists(strategy, max_size=4), flags)


numbers = expressions
facts = _node(
    ast.Expect, numbers, st.sampled_from(["==", "<=", ">=", "<", ">"]), numbers, trivia
) | _node(ast.ExpectType, names, types, trivia)
starts = atoms | _node(ast.Negate, atoms)
weights = names | _node(ast.Int, integers) | _node(ast.Float, floats)
terms = _node(ast.Term, _or_none(weights), calls)
guards = _or_none(plain)
choices = _node(ast.Choices, st.lists(names, min_size=2, max_size=3).map(tuple))
statements = (
    _node(ast.Input, names, types, _or_none(starts), trivia)
    | _node(ast.Weight, names, types, _or_none(starts), trivia)
    | _node(ast.Edge, names, expressions, trivia).map(_whole)
    | _node(ast.Edges, _many(names, 2), expressions, trivia).map(_whole)
    | _node(ast.State, names, types, names, _or_none(starts), expressions, trivia).map(_whole)
    | _node(ast.Output, names, types, guards, expressions, trivia).map(_whole)
    | _node(ast.Loss, st.lists(terms, min_size=1, max_size=3).map(tuple), guards, trivia)
    | _node(ast.Init, calls | names, trivia)
    | _node(ast.Result, expressions, trivia).map(_whole)
    | facts
)
params = closed(
    _node(
        ast.Params,
        _many(
            _node(
                ast.Param,
                names,
                _or_none(types | _node(ast.BlockType) | choices),
                _or_none(expressions),
                trivia,
            ).map(_whole)
        ),
    ),
    "params",
)
bodies = closed(_node(ast.Body, _stacked(statements)), "statements")
conversions = _node(ast.Conversion, names, _many(plain))
ignored = _node(ast.Ignore, paths, trivia)
rules = _node(ast.Rule, paths, _many(paths, 1), _many(conversions), trivia) | ignored
settings = _node(
    ast.Setting,
    _many(labels, 1),
    plain,
    _or_none(plain),
    _or_none(plain),
    trivia,
)
includes = closed(
    _node(
        ast.Include,
        strings,
        _many(_node(ast.Arg, _or_none(names), expressions, trivia).map(_whole)),
        trivia=trivia,
    ),
    "args",
)
settings |= includes
rules |= includes


def _groups(lines: Any) -> Any:
    return closed(_node(ast.Only, plain, _stacked(lines), trivia=trivia), "rules")


settings |= _groups(settings)
rules |= _groups(rules)
renames = _node(ast.Rename, paths, paths, trivia)
rules |= _node(ast.Optional, paths, trivia) | renames
rules |= closed(_node(ast.Config, _stacked(settings | renames), trivia=trivia), "rules")
items = (
    _node(ast.Use, strings, trivia)
    | _node(ast.Block, names, params, _or_none(types | several_types), bodies, trivia)
    | _node(ast.Model, names, params, bodies, trivia)
    | _node(
        ast.Variant,
        names,
        calls,
        _or_none(closed(_node(ast.Facts, _stacked(facts)), "statements")),
        trivia,
    )
    | closed(_node(ast.Weights, strings, names, _stacked(rules), trivia=trivia), "rules")
    | closed(
        _node(ast.SharedLines, strings, _or_none(params), _stacked(rules), trivia=trivia),
        "rules",
    )
)
trees = closed(_node(ast.File, _stacked(items)), "items")
