"""Each invariant of a graph: one change breaks it, and the message names the value."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from archdsl.graph.nodes import Apply, Graph
from archdsl.graph.parser import parse
from archdsl.graph.verify import BrokenGraph, verify

VALID = """\
graph G init normal(std = 0.02)
axis S <= 6 ragged source
axis T <= 8
input source: int[S] < 11 pad 0
input target: int[T] < 11
label class: int < 4
%1 = embed(source; vocab = 11, dim = 4, tied = none) @ tokens: float[S, D = 4]
%6 = stack(%1) * 2 @ encoder: float[S, D = 4] noncausal S
  take %2: float[S, D = 4] noncausal S
  %3 = attention(%2; heads = 2, mask = none, kv_heads = 2, head_size = 2, scale = 0.5, \
bias = true, out_bias = true) @ attention: float[S, D = 4] noncausal S
  %5 = stack(%3) * 3 @ acts: float[S, D = 4] noncausal S
    take %4: float[S, D = 4] noncausal S
    %7 = add(%4, other = %1): float[S, D = 4] noncausal S
    yield %7
  yield %5
%8 = embed(target; vocab = 11, dim = 4, tied = "tokens") @ embed: float[T, D = 4]
%9 = slice(%8; axis = 1, start = 0, stop = 2) @ slice: float[T, D = 2]
%10 = reshape(%9; pattern = "T (a b) -> T a b", sizes = (a = 1)) @ reshape: float[T, 1, 2]
%11 = unembed(%8; tied = "tokens", vocab = 11, dim = 4) @ unembed: float[T, vocab = 11]
%12 = mean(%6; axis = none) @ mean: float[D = 4] noncausal S
output logits = %11
output parts = %10
loss %13 = cross_entropy(%12, label = class; smoothing = 0.0): float
"""

# The old text, the new text, and the message.
MUTATIONS = [
    # axes
    ("axis S <= 6", "axis S <= 0", "axis S has the bound 0"),
    ("pad 0", "pad 0 = 0", "source has its pad as its default"),
    ("axis S <= 6", "axis 7 <= S <= 6", "axis S has the least length 7"),
    ("axis T <= 8", "axis T <= 8\naxis T <= 9", "T is the name of more than one axis"),
    ("axis T <= 8", "axis T <= 8\naxis U <= 9", "axis U is not an axis of any input"),
    (
        "ragged source",
        "ragged target",
        "axis S is ragged by target, which has no `pad` on this axis",
    ),
    (
        "ragged source",
        "ragged none",
        "axis S is ragged by none, which has no `pad` on this axis",
    ),
    (" pad 0\n", "\n", "axis S is ragged by source, which has no `pad` on this axis"),
    (
        "source: int[S]",
        "source: int[S, 2]",
        "axis S is ragged by source, which has no `pad` on this axis",
    ),
    (" ragged source", "", "source has a pad but no ragged axis"),
    (
        "11 pad 0",
        "11 pad 11",
        "source has pad 11, which int[S] < 11 does not allow",
    ),
    # types
    ("target: int[T] < 11", "target: long[T] < 11", "target has the unknown dtype long"),
    ("target: int[T] < 11", "target: int[T] < 0", "target has the bound 0 of int values"),
    ("target: int[T] < 11", "target: float[T] < 11", "target has the bound 11 of float values"),
    ("target: int[T] < 11", "target: int[0, T]", "target has an axis of size 0"),
    ("target: int[T] < 11", "target: int[T, U]", "target has an undeclared axis: U"),
    ("target: int[T] < 11", "target: int[T] noncausal U", "target has an undeclared axis: U"),
    ("take %4: float[S", "take %4: float[U", "%4 has an undeclared axis: U"),
    # names
    ("label class: ", "label source: ", "source is the name of more than one value"),
    ("%8 = embed", "%3 = embed", "%3 is the name of more than one value"),
    ("take %4", "take %8", "%8 is the name of more than one value"),
    ("loss %13", "loss %1", "%1 is the name of more than one value"),
    # uses
    ("embed(source", "embed(%8", "%1 uses %8, which is not defined before it"),
    ("stack(%1)", "stack(%8)", "%6 uses %8, which is not defined before it"),
    ("other = %1)", "other = %8)", "%7 uses %8, which is not defined before it"),
    ("mean(%6;", "mean(%3;", "%12 uses %3, which is not defined before it"),
    ("embed(target", "embed(class", "%8 uses class, which is not defined before it"),
    # operators
    (
        "%9 = slice(%8;",
        "%9 = slice(%8, x = %8;",
        "%9 has the tensors ['x', 'x'] instead of ['x']",
    ),
    ("add(%4, other = %1)", "add(%4)", "%7 has the tensors ['x'] instead of ['x', 'other']"),
    (
        "vocab = 11, dim = 4, tied = none",
        "dim = 4, vocab = 11, tied = none",
        "%1 has the settings ['dim', 'vocab', 'tied'] instead of ['vocab', 'dim', 'tied']",
    ),
    (
        "start = 0, ",
        "",
        "%9 has the settings ['axis', 'stop'] instead of ['axis', 'start', 'stop']",
    ),
    ("dim = 4, tied = none", "dim = 4.0, tied = none", "%1 has dim = 4.0"),
    ("dim = 4, tied = none", "dim = 0, tied = none", "%1 has dim = 0"),
    ("dim = 4, tied = none", "dim = true, tied = none", "%1 has dim = True"),
    ("dim = 4, tied = none", "dim = 4, tied = 7", "%1 has tied = 7"),
    ("scale = 0.5", "scale = 1", "%3 has scale = 1"),
    ("scale = 0.5", "scale = 1e999", "%3 has scale = inf"),
    ("mask = none", "mask = 0", "%3 has mask = 0"),
    ("mask = none", 'mask = "causl"', "%3 has the unknown mask 'causl'"),
    ("axis = 1", "axis = -1", "%9 has axis = -1"),
    ("start = 0", "start = -1", "%9 has start = -1"),
    ("(a = 1)", "(1)", "%10 has sizes = (1,)"),
    ("(a = 1)", "(a = 0)", "%10 has sizes = (('a', 0),)"),
    ('"T (a b) -> T a b"', "7", "%10 has pattern = 7"),
    ("kv_heads = 2", "kv_heads = none", "%3 has no value for kv_heads"),
    (
        "@ embed: float[T, D = 4]\n%9",
        "@ embed: float[T, D = 4]\n%14 = relu(target) @ relu: float\n%9",
        "%14 does not follow the type rule of relu: float values are needed here, not int",
    ),
    ("axis = 1", "axis = 2", "%9 does not follow the type rule of slice: there is no axis 2"),
    (
        "@ slice: float[T, D = 2]",
        "@ slice: float[T, D = 3]",
        "%9 has type float[T, D = 3] instead of float[T, D = 2]",
    ),
    (
        "@ mean: float[D = 4] noncausal S",
        "@ mean: float[D = 4]",
        "%12 has type float[D = 4] instead of float[D = 4] noncausal S",
    ),
    (
        "%12 = mean(%6; axis = none) @ mean: float[D = 4] noncausal S",
        "%12 = cross_entropy(%8, label = target) @ mean: float",
        "%12 uses cross_entropy, which is a loss",
    ),
    # stacks
    ("(%1) * 2", "(%1) * 0", "%6 repeats its body 0 times"),
    ("  yield %5", "  yield %4", "%6 returns %4, which its body does not define"),
    ("  yield %5", "  yield %8", "%6 returns %8, which its body does not define"),
    (
        "take %2: float[S, D = 4]",
        "take %2: float[S, 5]",
        "%6 passes float[S, D = 4] to a body that takes float[S, 5] noncausal S",
    ),
    (
        "take %2: float[S, D = 4] noncausal S",
        "take %2: float[S, D = 4]",
        "%6 takes float[S, D = 4] and returns float[S, D = 4] noncausal S",
    ),
    (
        "@ encoder: float[S, D = 4] noncausal S",
        "@ encoder: float[S, D = 4]",
        "%6 has type float[S, D = 4] and returns float[S, D = 4] noncausal S",
    ),
    # paths
    (
        'target; vocab = 11, dim = 4, tied = "tokens") @ embed',
        "target; vocab = 12, dim = 4, tied = none) @ tokens",
        "tokens is the path of %1 and of %8, which have different weights",
    ),
    (" @ embed", "", "%8 has the invalid path ''"),
    (" @ acts", "", "%5 has the invalid path ''"),
    # tables
    (
        'tied = "tokens") @',
        'tied = "token") @',
        "%8 is tied to token, which is not a table of an `embed`",
    ),
    (
        'tied = "tokens") @',
        'tied = "embed") @',
        "%8 is tied to embed, which is not a table of an `embed`",
    ),
    (
        'tied = "tokens") @',
        'tied = "mean") @',
        "%8 is tied to mean, which is not a table of an `embed`",
    ),
    (
        "vocab = 11, dim = 4, tied = none",
        "vocab = 12, dim = 4, tied = none",
        "%8 is tied to tokens, whose vocab differs",
    ),
    # outputs
    ("output parts", "output logits", "logits is the name of more than one output"),
    ("parts = %10", "parts = %3", "parts refers to %3, which is not defined"),
    ("parts = %10", "parts = class", "parts refers to class, which is not defined"),
    # loss
    ("entropy(%12", "entropy(%3", "%13 uses %3, which is not defined before it"),
    ("label = class", "label = klass", "%13 uses klass, which is not defined before it"),
    (
        "label class: int < 4",
        "label class: int < 4\nlabel kind: int < 2",
        "kind is a label that the loss does not use",
    ),
    (
        "loss %13 = cross_entropy(%12, label = class; smoothing = 0.0): float\n",
        "",
        "class is a label that the loss does not use",
    ),
    ("cross_entropy(%12, label", "add(%12, other", "%13 uses add, which is not a loss"),
]


def test_the_unchanged_graph_is_valid() -> None:
    graph = parse(VALID)
    assert verify(graph) is graph


@pytest.mark.parametrize(("old", "new", "message"), MUTATIONS)
def test_one_change_breaks_it(old: str, new: str, message: str) -> None:
    assert VALID.count(old) == 1
    with pytest.raises(BrokenGraph) as broken:
        verify(parse(VALID.replace(old, new)))
    assert str(broken.value) == message


# Graphs that cannot be written as text.


def first(graph: Graph, **changes: Any) -> Graph:
    """The graph with another first node."""
    node, *others = graph.nodes
    return replace(graph, nodes=(replace(node, **changes), *others))


def test_the_id_of_a_value_starts_with_a_percent_sign() -> None:
    broken = first(parse(VALID), id="x")
    with pytest.raises(
        BrokenGraph, match=r"^x is the id of a value and does not start with `%`$"
    ):
        verify(broken)


def test_something_is_computed() -> None:
    broken = replace(parse(VALID), outputs=(), losses=())
    with pytest.raises(BrokenGraph, match=r"^G has no output and no loss$"):
        verify(broken)


def test_an_operator_is_in_the_table() -> None:
    broken = first(parse(VALID), op="embeds")
    with pytest.raises(BrokenGraph, match=r"^%1 uses the unknown operator embeds$"):
        verify(broken)


@pytest.mark.parametrize("path", ["", "a.", "a.-1", "a b"])
def test_a_path_consists_of_names(path: str) -> None:
    broken = first(parse(VALID), path=path)
    with pytest.raises(BrokenGraph, match=rf"^%1 has the invalid path '{path}'$"):
        verify(broken)


def test_an_operator_has_its_own_tensor_first() -> None:
    broken = first(parse(VALID), inputs=(("other", "source"),))
    with pytest.raises(
        BrokenGraph, match=r"^%1 has the tensors \['other'\] instead of \['x'\]$"
    ):
        verify(broken)


def test_names_of_axes_may_differ() -> None:
    renamed = VALID.replace("@ slice: float[T, D = 2]", "@ slice: float[X = T, 2]")
    assert isinstance(verify(parse(renamed)).nodes[0], Apply)
