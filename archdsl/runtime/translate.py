"""Sequence to sequence with any model whose loss is `next_token`: from its graph alone it is
known which input is the target, which the source, and which output the logits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from archdsl.diagnostics import ArchError, Diagnostic
from archdsl.graph.nodes import Graph, Input
from archdsl.passes.decoding import predicted
from archdsl.runtime.decoding import Decoder
from archdsl.runtime.model import Model
from archdsl.runtime.search import Hypothesis, beam_search
from archdsl.runtime.tokenizers import VocabularyTokenizer

_STEP = 16  # a source's length is rounded up to a multiple of it


@dataclass(frozen=True)
class Roles:
    """The parts that a model's inputs and outputs play in translating."""

    source: Input
    target: Input
    logits: str


def roles(graph: Graph) -> Roles:
    """Which is which; raises `ArchError` for a model that does not translate."""
    found = predicted(graph)
    if isinstance(found, str):
        problem = found
    else:
        name, logits = found
        target = next(i for i in graph.inputs if i.name == name)
        sources = [i for i in graph.inputs if i is not target]
        if len(sources) == 1 and sources[0].type.dtype == "int":
            return Roles(sources[0], target, logits)
        problem = f"beside `{name}` it has {len(sources)} inputs, not one of tokens"
    raise ArchError(
        Diagnostic(
            "generation",
            f"`{graph.name}` does not translate: {problem}",
            expected="a source, a target, and `loss next_token(logits, target)`",
        )
    )


def translate(
    model: Model,
    tokenizer: VocabularyTokenizer,
    text: str,
    *,
    beams: int = 1,
    max_length: int | None = None,
    length_penalty: float = 0.0,
    best: int | None = None,
) -> tuple[Hypothesis, ...]:
    """The best targets for a source text, best first; `beams = 1` is greedy.

    A hypothesis' score is the sum of the log-probabilities, in nats, of its tokens.
    `max_length` counts the tokens with both ends, the model's bound where None.
    """
    parts = roles(model.graph)
    bound = _bound(model.graph, parts.target)
    ids = tokenizer.encode(text, bos=True, eos=True)
    limit = _bound(model.graph, parts.source)
    if len(ids) > limit:
        raise ArchError(
            Diagnostic(
                "generation",
                f"the source is too long for `{model.graph.name}`",
                expected=f"{limit} tokens or fewer, both ends counted",
                found=f"{len(ids)} tokens",
            )
        )
    if max_length is not None and max_length > bound:
        raise ArchError(
            Diagnostic(
                "generation",
                f"`{model.graph.name}` makes no sequences of {max_length} tokens",
                expected=f"{bound} or fewer",
            )
        )
    source = _source(parts.source, ids, beams, limit)
    scorer = _scorer(model.decoder(beams), parts, source)
    return beam_search(
        scorer, tokenizer.bos, tokenizer.eos, beams, max_length or bound, length_penalty, best
    )


def _source(each: Input, ids: list[int], beams: int, limit: int) -> NDArray[np.int64]:
    """A source for each beam, [beams, S]; its length is rounded up where padding is known."""
    size = len(ids) if each.pad is None else _rounded(len(ids), limit)
    source = np.full((beams, size), each.pad or 0, np.int64)
    source[:, : len(ids)] = ids
    return source


def _scorer(
    decoder: Decoder, parts: Roles, source: NDArray[np.int64]
) -> Callable[[NDArray[np.int64]], NDArray[np.float32]]:
    """The next token's logits for prefixes [N, t], each a token longer than one of the call
    before. Padding is never the next token."""
    pad = parts.target.pad
    before: list[tuple[int, ...]] = []

    def score(prefixes: NDArray[np.int64]) -> NDArray[np.float32]:
        rows = [tuple(prefix) for prefix in prefixes.tolist()]
        rows += rows[:1] * (len(source) - len(rows))
        if len(rows[0]) == 1:
            decoder.begin(**{parts.source.name: source})
        else:
            decoder.reorder([before.index(row[:-1]) for row in rows])
        before[:] = rows
        logits = decoder.feed(np.array(rows)[:, -1:])[: len(prefixes), -1]  # [N, vocab]
        if pad is not None:
            logits[:, pad] = -np.inf
        return logits

    return score


def _rounded(length: int, bound: int) -> int:
    return min(-(-length // _STEP) * _STEP, bound)


def _bound(graph: Graph, each: Input) -> int:
    bounds = {v.name: v.bound for v in graph.varying}
    return each.type.axes[0].size.at(bounds)
