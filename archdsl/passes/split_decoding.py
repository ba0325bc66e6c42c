"""Splits a model for decoding: a graph that is computed once, and one that is stepped.

A model that is proved causal along its tokens can be fed a few at a time. What does not depend
on the tokens is computed once for a sequence: the memory of an encoder, and the keys and values
that each layer makes of it. All else is computed for the new positions alone; where an operator
needs the past ones, they are in a cache. Both graphs are ordinary ones. Caches, positions and
what the first graph gives are inputs of the second, so that no operator has a rule of its own
for decoding: its row in graph/ops.py says which of these inputs it takes.

The positions of all rows stand in columns. Rows of unequal length are padded in front, so row b
begins in column `starts[b]`, and `past` columns were fed before.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from archdsl.diagnostics import fail
from archdsl.graph.nodes import Graph
from archdsl.passes.build_once_graph import build_once_graph
from archdsl.passes.build_step_graph import build_step_graph
from archdsl.passes.decoding_analysis import Analysis, State
from archdsl.passes.decompose import decompose
from archdsl.passes.eliminate_dead_code import drop_unused


@dataclass(frozen=True)
class Decoding:
    """A model as it is decoded.

    `tokens` is the input that comes step by step along `axis`, `along` are the other inputs
    that do, and `logits` is the output. `once` is the graph that is computed once, None where
    there is nothing to compute; its outputs are inputs of `step`. A cache is an input and an
    output of `step` by one name. A row begins with `lead` columns that are no tokens, where
    vectors are prepended.
    """

    once: Graph | None
    step: Graph
    tokens: str
    along: tuple[str, ...]
    axis: str
    logits: str
    lead: int
    states: tuple[State, ...]


def split_decoding(graph: Graph, columns: int | None = None) -> Decoding:
    """How the logits of a model are computed step by step, with caches of so many columns, as
    many as a sequence can have where None.

    Raises `ArchError`, code `generation`, for a model that predicts no tokens, and code
    `not-causal`, with the line, for what cannot be computed without later tokens.
    """
    tokens, logits = _required(graph)
    (ref,) = (ref for name, ref in graph.outputs if name == logits)
    alone = decompose(replace(graph, outputs=((logits, ref),), labels=(), loss=None))
    of = Analysis(replace(alone, nodes=drop_unused(alone.nodes, {ref})), tokens, columns)
    along = tuple(each.name for each in graph.inputs if each.name in of.along - {tokens})
    states = tuple(kept.state for kept in of.step_inputs.values())
    return Decoding(
        build_once_graph(of),
        build_step_graph(of),
        tokens,
        along,
        of.axis,
        logits,
        of.lead,
        states,
    )


def find_tokens_and_logits(graph: Graph) -> tuple[str, str] | str:
    """The input of tokens and the output of logits for the one after each, by the loss; or
    why there are none."""
    loss = graph.loss
    if loss is None or loss.op != "next_token":
        return "its loss is not `next_token`"
    given = dict(loss.inputs)
    tokens = next((i.name for i in graph.inputs if i.name == given["tokens"]), None)
    logits = next((name for name, ref in graph.outputs if ref == given["logits"]), None)
    if tokens is None or logits is None:
        return "its loss does not compare an output with an input"
    return tokens, logits


def _required(graph: Graph) -> tuple[str, str]:
    found = find_tokens_and_logits(graph)
    if not isinstance(found, str):
        return found
    fail(
        "generation",
        f"`{graph.name}` cannot generate tokens: {found}",
        expected="`loss next_token(logits, tokens)` with an output and an input of the model",
    )
