"""Translation with a sequence-to-sequence model, by beam search.

The graph tells which input is the source, which is the target, and which output has the
logits. Sources and results are tokens; the caller has the tokenizer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from archdsl.diagnostics import fail
from archdsl.generation.beam_search import Hypothesis, Scorer, Search, beam_search
from archdsl.generation.processors import Forbid
from archdsl.graph.nodes import Graph, Input
from archdsl.model import Model
from archdsl.passes.split_decoding import find_tokens_and_logits
from archdsl.progress import each

_LENGTH_STEP = 16  # the length of padded sources is rounded up to a multiple


@dataclass(frozen=True)
class Roles:
    """The source, target and logits of a model, and the maximum lengths in tokens."""

    source: Input
    target: Input
    logits: str
    source_bound: int
    target_bound: int


def find_roles(graph: Graph) -> Roles:
    """Finds the source, target and logits; raises `ArchError` for a model of another kind."""
    found = find_tokens_and_logits(graph)
    if isinstance(found, str):
        problem = found
    else:
        name, logits = found
        target = next(i for i in graph.inputs if i.name == name)
        sources = [i for i in graph.required if i is not target]
        if len(sources) == 1 and sources[0].type.dtype == "int":
            bounds = graph.bounds
            longest = (i.type.axes[0].size.at(bounds) for i in (sources[0], target))
            return Roles(sources[0], target, logits, *longest)
        problem = (
            f"it has {len(sources)} inputs in addition to `{name}`, not one input of tokens"
        )
    fail(
        "generation",
        f"`{graph.name}` is not a sequence-to-sequence model: {problem}",
        expected="two inputs of tokens, and `loss next_token(logits, target)`",
    )


def translate(
    model: Model, sources: Sequence[Sequence[int]], search: Search, together: int = 8
) -> Iterator[tuple[Hypothesis, ...]]:
    """Yields the best targets of each source, best first, in the order of the sources.

    One batch has all beams of up to `together` sources. Prefixes are cached. The result for a
    source does not depend on the others. Padding is never generated. Raises `ArchError`
    "generation" before any computation if a source or `search.max_length` is too long for the
    model, and as `beam_search` does.
    """
    parts = find_roles(model.graph)
    _check(model.graph, parts, sources, search, together)
    if parts.target.pad is not None:
        padding = Forbid(((parts.target.pad,),))
        search = replace(search, processors=(padding, *search.processors))
    # Without padding, sources of different lengths cannot share a batch.
    size = 1 if parts.source.pad is None else min(together, max(len(sources), 1))
    return _translate_batches(model, parts, sources, search, size)


def _translate_batches(
    model: Model, parts: Roles, sources: Sequence[Sequence[int]], search: Search, size: int
) -> Iterator[tuple[Hypothesis, ...]]:
    starts = range(0, len(sources), size)
    for start in each(starts, "translating", "batches", len(starts)):
        given = sources[start : start + size]
        # The last batch is filled with copies; another size would compile again.
        filled = [*given, *[given[-1]] * (size - len(given))]
        scorer = cached_scorer(model, parts, filled, search)
        yield from beam_search(scorer, search, len(given))


def cached_scorer(
    model: Model, parts: Roles, sources: Sequence[Sequence[int]], search: Search
) -> Scorer:
    """Returns a scorer that computes only the last token of each prefix.

    Each prefix must extend a prefix of the previous call by one token. Each source has
    `search.beams` rows of the batch.
    """
    decoder = model.decoder(len(sources) * search.beams, search.max_length)
    rows = pad_sources(parts, sources, search.beams)
    row_of: dict[tuple[int, tuple[int, ...]], int] = {}

    def score(prefixes: NDArray[np.int64], of: NDArray[np.int64]) -> NDArray[np.float32]:
        rank = np.arange(len(of)) - np.searchsorted(of, of)  # [N], within the source
        now = of * search.beams + rank  # [N]
        known = [(i, tuple(p)) for i, p in zip(of.tolist(), prefixes.tolist(), strict=True)]
        if prefixes.shape[1] == 1:
            decoder.begin(**{parts.source.name: rows})
        else:
            parents = np.arange(decoder.rows)  # [rows]; unused rows stay
            parents[now] = [row_of[i, prefix[:-1]] for i, prefix in known]
            decoder.reorder(parents.tolist())
        row_of.clear()
        row_of.update(zip(known, now.tolist(), strict=True))
        tokens = np.full((decoder.rows, 1), search.start)  # [rows, 1]
        tokens[now] = prefixes[:, -1:]
        logits: NDArray[np.float32] = decoder.feed(tokens)[now, -1]  # [N, vocab]
        return logits

    return score


def pad_sources(
    parts: Roles, sources: Sequence[Sequence[int]], beams: int
) -> NDArray[np.int64]:
    """Returns the padded sources, each repeated `beams` times, [sources * beams, S].

    If the model has padding, S is rounded up, so that fewer programs are compiled.
    """
    longest = max(map(len, sources))
    if parts.source.pad is not None:
        longest = min(-(-longest // _LENGTH_STEP) * _LENGTH_STEP, parts.source_bound)
    rows = np.full((len(sources), longest), parts.source.pad or 0)  # [sources, S]
    for row, ids in zip(rows, sources, strict=True):
        row[: len(ids)] = ids
    return rows.repeat(beams, axis=0)  # [sources * beams, S]


def _check(
    graph: Graph, parts: Roles, sources: Sequence[Sequence[int]], search: Search, together: int
) -> None:
    for number, ids in enumerate(sources, 1):
        which = f"source {number}" if len(sources) > 1 else "the source"
        if not ids:
            fail("generation", f"{which} has no tokens", expected="1 token or more")
        if len(ids) > parts.source_bound:
            fail(
                "generation",
                f"{which} is too long for `{graph.name}`",
                expected=f"at most {parts.source_bound} tokens, start and end included",
                found=f"{len(ids)} tokens",
            )
    if search.max_length > parts.target_bound:
        fail(
            "generation",
            f"max_length is larger than the context of `{graph.name}`",
            expected=f"at most {parts.target_bound}",
            found=str(search.max_length),
        )
    below = parts.target.type.below
    if below is not None and not 0 <= search.start < below:
        fail(
            "generation",
            f"the start token is not in the vocabulary of `{graph.name}`",
            expected=f"0 to {below - 1}",
            found=str(search.start),
        )
    if together < 1:
        fail(
            "generation",
            "the number of sources per batch is out of range",
            expected="1 or more",
            found=str(together),
        )
