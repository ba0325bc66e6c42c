"""Printing and parsing: every spec, and graphs without default values of fields."""

from __future__ import annotations

import random
import re
from dataclasses import fields
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archdsl.analysis import analyse
from archdsl.diagnostics import ArchError
from archdsl.graph.nodes import (
    Apply,
    Body,
    Graph,
    Input,
    Mixture,
    Node,
    Scan,
    Slice,
    Stack,
    Table,
    Tail,
    Term,
)
from archdsl.graph.ops import OPS
from archdsl.graph.parser import parse, tensor_names
from archdsl.graph.printer import show
from archdsl.graph.types import Axis, Size, Type, Varying
from tests.suite import mostly_long

SPECS = Path(__file__).parents[2] / "specs"

# Every part of the syntax.
ALL = """\
graph G init normal(std = 0.02)
axis S <= 100_000 ragged source
axis T <= 8
input source: int[S] < 11 pad 0
input pixels: float[3, W = 4, T, (T)]
label label: int[T] < 250_112
%1 = embed(source; vocab = 11, dim = 4, tied = none) @ tokens: float[S, D = 4]
%8 = stack(%1) * 2 @ encoder: float[S, D = 4] noncausal S
  take %2: float[S, D = 4] noncausal S
  %3 = attention(%2; heads = 1, mask = none, kv_heads = 1, head_size = 4, scale = -1.5e-07, \
bias = true, out_bias = false) @ part.attention: float[S, D = 4] noncausal S
  %7 = stack(%3) * 3 @ inner: float[S, D = 4] noncausal S
    take %4: float[S, D = 4] noncausal S
    %5 = mlp(%4; sizes = (8, 4), act = "relu", bias = true): float[S, 4] noncausal S
    %6 = add(%4, other = %2) @ add: float[S, D = 4] noncausal S
    yield %6
  yield %7
%13 = weight(; sizes = (1, 4), start = 0.0, std = none) @ cls: float[1, 4]
%9 = concat(%13, other = %8; axis = 0, name = "cls") @ concat: float[cls:S = S + 1, D = 4] \
noncausal S
%10 = reshape(%9; pattern = "S (h d) -> h S d", sizes = (h = 2)) @ h: float[h = 2, \
dist:cls:S + 1, d = 2] noncausal S T
%11 = reshape(pixels; pattern = "\\"T\\u0001\\\\é", sizes = ()): bool[-2 S^2 + 3 S T - T - 1, 0]
output logits = %9
output pixels = pixels
loss %12 = cross_entropy(%9, label = label; smoothing = 0.0): float
"""


def models() -> list[str]:
    """Every model and variant of the library, as `analyse` takes it."""
    return [
        f"{path}:{name}"
        for path in sorted(SPECS.glob("*.arch"))
        for name in re.findall(
            r"^(?:model|variant) (\w+)", path.read_text(encoding="utf-8"), re.M
        )
    ]


@pytest.mark.parametrize("spec", mostly_long(models()), ids=lambda spec: Path(spec).name)
def test_every_spec_round_trips(spec: str) -> None:
    graph = analyse(spec).graph
    assert parse(show(graph)) == graph


def test_every_part_of_the_text_round_trips() -> None:
    assert show(parse(ALL)) == ALL


def test_indentation_and_empty_lines_are_not_needed() -> None:
    loose = "\n\n" + "\r\n\r\n".join(line.strip() for line in ALL.splitlines())
    assert parse(loose) == parse(ALL)


# -- graphs in which every field has a value other than its default --

names = st.sampled_from(
    ["T", "S", "pad", "noncausal", "none", "stack", "yield", "graph", "by", "each", "é_1", "_"]
)
ids = st.integers(1, 99).map(lambda n: f"%{n}")
refs = ids | names
naturals = st.integers(0, 10**9)
floats = st.floats(allow_nan=False, allow_infinity=False)
sizes = st.builds(
    lambda terms, rest: sum((Size.of(a) * Size.of(b) * n for a, b, n in terms), start=rest),
    st.lists(st.tuples(names, names | st.just(1), st.integers(-3, 10**6)), max_size=3),
    st.integers(-3, 10**6).map(Size.of),
)
sizes |= st.builds(lambda a, n, b: a // n * b, sizes, st.integers(1, 9), sizes)
axes = st.builds(
    Axis, names | st.none(), sizes | names.map(Size.of), st.lists(names, max_size=2).map(tuple)
)
types = st.builds(
    Type,
    st.sampled_from(["float", "int", "bool"]),
    st.lists(axes, max_size=3).map(tuple),
    naturals | st.none(),
    st.frozensets(names, max_size=3),
)
numbered = st.integers(0, 99).map(str)
paths = st.lists(names | numbered, max_size=3).map(".".join)
tails = st.builds(Tail, names, refs | st.none())
slices = st.builds(Slice, ids, refs, types)
attributes = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**9), 10**9),
    floats,
    st.text(),
    st.lists(st.integers(-5, 10**6)).map(tuple),
    st.lists(st.tuples(names, naturals)).map(tuple),
)


@st.composite
def applies(draw: st.DrawFn) -> Apply:
    op = OPS[draw(st.sampled_from(sorted(OPS)))]
    others = draw(st.lists(st.tuples(names, refs), max_size=2))
    first = list(islice(tensor_names(op), 1)) if draw(st.booleans()) else []
    return Apply(
        draw(ids),
        op.name,
        (*((name, draw(refs)) for name in first), *others) if first else (),
        tuple(draw(st.lists(st.tuples(names, attributes), max_size=4))),
        draw(paths),
        draw(types),
        tail=tuple(draw(st.lists(tails, max_size=3))),
        kernels=tuple(draw(st.lists(names, max_size=4))),
    )


def stacks(inner: st.SearchStrategy[Node]) -> st.SearchStrategy[Node]:
    nodes = st.lists(inner, max_size=3).map(tuple)
    several = st.lists(slices, max_size=2).map(tuple)
    bodies = st.builds(Body, ids, types, nodes, refs, takes=several, gives=several)

    @st.composite
    def stack(draw: Any) -> Stack:
        kinds = tuple(draw(st.lists(st.integers(0, 2), max_size=6)))
        kinds = tuple(list(dict.fromkeys(kinds)).index(kind) for kind in kinds)
        count = len(kinds) if len(set(kinds)) > 1 else draw(naturals)
        kinds = kinds if len(set(kinds)) > 1 else ()
        own = tuple(draw(bodies) for _ in range(max(kinds, default=0) + 1))
        id, x, path, type = draw(ids), draw(refs), draw(paths), draw(types)
        return Stack(id, x, count, path, own, type, kinds=kinds, tied=draw(st.booleans()))

    counts = (naturals, naturals, paths)
    parts = (ids, refs, refs, *counts, ids, types, nodes, refs, types)
    return stack() | st.builds(Mixture, *parts)


@st.composite
def scans(draw: st.DrawFn) -> Scan:
    takes = tuple(draw(st.lists(slices, max_size=2)))
    body = tuple(draw(st.lists(applies(), max_size=2)))
    path, result = draw(paths), draw(refs)
    output = draw(refs | st.just(result))
    start, valid, final = draw(refs | st.none()), draw(refs | st.none()), draw(ids | st.none())
    kernels = tuple(draw(st.lists(names, max_size=2)))
    return Scan(
        *(draw(ids), path, draw(ids), draw(types), takes, body, result, output, draw(types)),
        *(start, valid, final, kernels),
    )


nodes: st.SearchStrategy[Node] = st.recursive(applies() | scans(), stacks, max_leaves=5)
inputs = st.builds(Input, names, types, naturals | st.none())


def several(one: st.SearchStrategy[object]) -> st.SearchStrategy[tuple[object, ...]]:
    return st.lists(one, min_size=1, max_size=3).map(tuple)


graphs = st.builds(
    Graph,
    name=names,
    varying=several(st.builds(Varying, names, naturals, names, least=naturals)),
    inputs=several(inputs),
    nodes=several(nodes),
    outputs=several(st.tuples(names, refs)),
    labels=several(inputs),
    losses=several(st.builds(Term, floats, applies())),
    init=st.tuples(names, several(st.tuples(names, floats))),
    tables=several(st.builds(Table, paths.filter(bool), naturals, naturals)),
)


@given(graphs)
def test_generated_graphs_round_trip(graph: Graph) -> None:
    assert all(getattr(graph, field.name) != field.default for field in fields(Graph))
    assert parse(show(graph)) == graph


# -- invalid texts --

HEAD = "graph G init xavier\ninput x: float[4]\n"
PLACE = "a name or a whole number or a number"


@pytest.mark.parametrize(
    ("text", "place", "message", "expected"),
    [
        ("", "1:1", "the line ends here", "`graph`"),
        ("graph G", "1:8", "the line ends here", "`init`"),
        ("graph G init normal(std)", "1:24", "unexpected `)`", "`=`"),
        ("graph G init xavier\naxis T <= x", "2:11", "unexpected `x`", "a whole number"),
        (HEAD + "%1 = relu(7): float", "3:11", "unexpected `7`", "%… or a name"),
        (HEAD + "%1 = relu(x", "3:12", "the line ends here", "`)`"),
        (HEAD + "%1 = relu(x; a = )", "3:18", "unexpected `)`", "a whole number"),
        (HEAD + "%1 = relu(x; a = 1 b = 2)", "3:20", "unexpected `b`", "`,`"),
        (
            HEAD + "%1 = relu(x) @ h.: float",
            "3:18",
            "unexpected `:`",
            "a name or a whole number or a number",
        ),
        (
            HEAD + "%1 = relu(x) @ (: float",
            "3:16",
            "unexpected `(`",
            "a name or a whole number or a number",
        ),
        (HEAD + "%1 = relu(x): float[,]", "3:21", "unexpected `,`", "a size"),
        (HEAD + "%1 = relu(x): float[T^]", "3:23", "unexpected `]`", "a whole number"),
        (
            HEAD + "%1 = stack(x) * 2: int\nyield x",
            "4:1",
            "unexpected `yield`",
            "`take`",
        ),
        (
            HEAD + "%1 = relu(x): float\nyield x",
            "4:1",
            "unexpected `yield`",
            "the end of the text",
        ),
        (
            HEAD + "loss %1 = relu(x): float\noutput y = x",
            "4:1",
            "unexpected `output`",
            "the end of the text",
        ),
        (HEAD + "output y = x z", "3:14", "unexpected `z`", "the end of the line"),
        (HEAD + "output y = x §", "3:14", "unexpected character `§`", None),
        (HEAD + '%1 = relu(x; a = "\\q"): float', "3:18", 'unexpected character `"`', None),
    ],
)
def test_refused(text: str, place: str, message: str, expected: str | None) -> None:
    with pytest.raises(ArchError) as refused:
        parse(text)
    (found,) = refused.value.diagnostics
    assert found.span
    assert (found.code, found.span.place) == ("syntax", f"<graph>:{place}")
    assert (found.message, found.expected) == (message, expected)


def test_a_diagnostic_shows_the_place() -> None:
    with pytest.raises(ArchError) as refused:
        parse(HEAD + "%1 = rellu(x): float[4]\n")
    assert (
        str(refused.value)
        == """\
<graph>:3:6: error[syntax]: unknown operator `rellu`
  |
3 | %1 = rellu(x): float[4]
  |      ^^^^^
  = help: did you mean `relu`?"""
    )


def damaged(text: str, seed: int) -> str:
    choose = random.Random(seed)
    for _ in range(choose.randint(1, 4)):
        at, length = choose.randrange(len(text)), choose.randint(0, 3)
        put = choose.choice(
            ["", "(", ")", "=", "%", '"', "\n", "T", "7", "_", "\\", "€", ":", "^2"]
        )
        text = text[:at] + put + text[at + length :]
    return text


def codes(text: str) -> list[str]:
    try:
        parse(text)
    except ArchError as error:
        return [diagnostic.code for diagnostic in error.diagnostics]
    return []


def test_a_damaged_text_is_a_graph_or_a_diagnostic() -> None:
    for seed in range(1000):
        text = damaged(ALL, seed)
        assert codes(text) in ([], ["syntax"]), text
