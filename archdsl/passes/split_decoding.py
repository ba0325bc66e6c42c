"""Splits a model for decoding: one graph runs once per sequence, one runs for each step.

A model that is causal along its tokens can be fed a few tokens at a time. Values that do not
depend on the tokens are computed once: the output of an encoder, and the keys and values that
each layer computes from it. All other values are computed only at the new positions; past
positions come from a cache. Caches, positions and the results of the first graph are ordinary
inputs of the second, and an operator's row in graph/ops.py says which of them it needs.

All rows of a batch share cache positions: `past` of them are used before a step. Shorter rows
are padded on the left, so row b starts at cache position `left_pad[b]`.
"""

from __future__ import annotations

from dataclasses import replace

from archdsl.diagnostics import fail
from archdsl.frozen import Frozen
from archdsl.graph.nodes import Graph
from archdsl.graph.unused import drop_unused
from archdsl.passes.build_once_graph import build_once_graph
from archdsl.passes.build_step_graph import build_step_graph
from archdsl.passes.decoding_analysis import Analysis, State
from archdsl.passes.decompose import decompose
from archdsl.passes.keep_latents import keep_latents


class Decoding(Frozen):
    """A model split for decoding.

    `tokens` is the input that is fed along `axis`, `along` are the other inputs with a value
    per token, and `logits` is the output. `once` is the graph that runs once, None if there is
    nothing to compute; its outputs are inputs of `step`. A cache or a carried state is an input
    and an output of `step` with the same name. Each row starts with `lead` prepended positions,
    which are not tokens. `longest` is the most tokens of a sequence, and `shortened` says why
    it is less than the model's bound.
    """

    once: Graph | None
    step: Graph
    tokens: str
    along: tuple[str, ...]
    axis: str
    logits: str
    lead: int
    longest: int
    shortened: str | None
    states: tuple[State, ...]


def split_decoding(graph: Graph, capacity: int | None = None) -> Decoding:
    """Splits a model for decoding, with caches of `capacity` positions (default: the longest
    sequence).

    Raises `ArchError` with code `generation` if the model does not predict tokens, and with
    code `not-causal` and the line if a value depends on later tokens.

    >>> from archdsl.graph.parser import parse
    >>> sizes = 'heads = 2, mask = "causal", kv_heads = 2, head_size = 2, scale = 0.5'
    >>> graph = parse(f'''graph G init normal(std = 0.02)
    ... axis T <= 8
    ... input tokens: int[T] < 4
    ... %1 = embed(tokens; vocab = 4, dim = 4, tied = none) @ embed: float[T, 4]
    ... %2 = attention(%1; {sizes}, bias = false, out_bias = false) @ attention: float[T, 4]
    ... output logits = %2
    ... loss %3 = next_token(%2, tokens = tokens; ahead = 1, smoothing = 0.0): float
    ... ''')
    >>> for state in split_decoding(graph).states:
    ...     print(state)
    attention.k_heads: float[T, heads = 2, size = 2], cache of all positions
    attention.v_heads: float[T, heads = 2, size = 2], cache of all positions
    """
    tokens, logits = _require_tokens_and_logits(graph)
    (ref,) = (ref for name, ref in graph.outputs if name == logits)
    alone = decompose(replace(graph, outputs=((logits, ref),), labels=(), losses=()))
    alone = keep_latents(alone)
    analysis = Analysis(replace(alone, nodes=drop_unused(alone.nodes, {ref})), tokens, capacity)
    along = tuple(each.name for each in graph.inputs if each.name in analysis.along - {tokens})
    states = tuple(each.state for each in analysis.states)
    return Decoding(
        build_once_graph(analysis),
        build_step_graph(analysis),
        tokens,
        along,
        analysis.axis,
        logits,
        analysis.lead,
        analysis.longest,
        analysis.shortened,
        states,
    )


def find_tokens_and_logits(graph: Graph) -> tuple[str, str] | str:
    """The names of the token input and the logits output of the `next_token` loss; if it has
    none, the reason."""
    loss = graph.objective("next_token")
    if loss is None:
        return "its loss is not `next_token`"
    given = dict(loss.inputs)
    tokens = next((i.name for i in graph.inputs if i.name == given["tokens"]), None)
    logits = next((name for name, ref in graph.outputs if ref == given["logits"]), None)
    if tokens is None or logits is None:
        return "its loss does not compare an output with an input"
    return tokens, logits


def _require_tokens_and_logits(graph: Graph) -> tuple[str, str]:
    found = find_tokens_and_logits(graph)
    if not isinstance(found, str):
        return found
    fail(
        "generation",
        f"`{graph.name}` cannot generate tokens: {found}",
        expected="`loss next_token(logits, tokens)` with an output and an input of the model",
    )
