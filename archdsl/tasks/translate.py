"""Sequence to sequence with any model whose loss is `next_token`: from its graph alone it is
known which input is the target, which the source, and which output the logits.

Sources are tokens, and so is what is found; how text becomes tokens is left to the caller.
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

_STEP = 16  # a source's length is rounded up to a multiple of it


@dataclass(frozen=True)
class Roles:
    """The parts that a model's inputs and outputs play in translating, and the most tokens
    that a source and a target can have."""

    source: Input
    target: Input
    logits: str
    source_bound: int
    target_bound: int


def roles(graph: Graph) -> Roles:
    """Which is which; raises `ArchError` for a model that does not translate."""
    found = find_tokens_and_logits(graph)
    if isinstance(found, str):
        problem = found
    else:
        name, logits = found
        target = next(i for i in graph.inputs if i.name == name)
        sources = [i for i in graph.inputs if i is not target]
        if len(sources) == 1 and sources[0].type.dtype == "int":
            bounds = {v.name: v.bound for v in graph.varying}
            longest = (i.type.axes[0].size.at(bounds) for i in (sources[0], target))
            return Roles(sources[0], target, logits, *longest)
        problem = f"beside `{name}` it has {len(sources)} inputs, not one of tokens"
    fail(
        "generation",
        f"`{graph.name}` does not translate: {problem}",
        expected="a source, a target, and `loss next_token(logits, target)`",
    )


def translate(
    model: Model, sources: Sequence[Sequence[int]], search: Search, together: int = 8
) -> Iterator[tuple[Hypothesis, ...]]:
    """The best targets for each source, best first, in the order of the sources.

    All beams of up to `together` sources are computed in one batch, and what was computed for
    a prefix is kept; what is found for a source depends on no other. Padding is never said.
    Raises `ArchError` "generation" where a source or `search.max_length` is too long for the
    model, before anything is computed, and as `beam_search` does.
    """
    parts = roles(model.graph)
    _check(model.graph, parts, sources, search, together)
    if parts.target.pad is not None:
        padding = Forbid(((parts.target.pad,),))
        search = replace(search, processors=(padding, *search.processors))
    # Without padding, sources of unequal length cannot stand in one batch.
    size = 1 if parts.source.pad is None else min(together, max(len(sources), 1))
    return _found(model, parts, sources, search, size)


def _found(
    model: Model, parts: Roles, sources: Sequence[Sequence[int]], search: Search, size: int
) -> Iterator[tuple[Hypothesis, ...]]:
    starts = range(0, len(sources), size)
    for start in each(starts, "translating", "batches", len(starts)):
        given = sources[start : start + size]
        # The last batch is filled up: another size would be compiled anew.
        filled = [*given, *[given[-1]] * (size - len(given))]
        scorer = cached(model, parts, filled, search)
        yield from beam_search(scorer, search, len(given))


def cached(
    model: Model, parts: Roles, sources: Sequence[Sequence[int]], search: Search
) -> Scorer:
    """The next token's logits for prefixes that are each a token longer than one of the call
    before, computed of that token alone. Each source has `search.beams` rows of the batch."""
    decoder = model.decoder(len(sources) * search.beams, search.max_length)
    rows = padded(parts, sources, search.beams)
    places: dict[tuple[int, tuple[int, ...]], int] = {}

    def score(prefixes: NDArray[np.int64], of: NDArray[np.int64]) -> NDArray[np.float32]:
        rank = np.arange(len(of)) - np.searchsorted(of, of)  # [N], within its source
        now = of * search.beams + rank  # [N]
        known = [(i, tuple(p)) for i, p in zip(of.tolist(), prefixes.tolist(), strict=True)]
        if prefixes.shape[1] == 1:
            decoder.begin(**{parts.source.name: rows})
        else:
            parents = np.arange(decoder.rows)  # [rows]: one that is not asked for stays
            parents[now] = [places[i, prefix[:-1]] for i, prefix in known]
            decoder.reorder(parents.tolist())
        places.clear()
        places.update(zip(known, now.tolist(), strict=True))
        tokens = np.full((decoder.rows, 1), search.start)  # [rows, 1]
        tokens[now] = prefixes[:, -1:]
        logits: NDArray[np.float32] = decoder.feed(tokens)[now, -1]  # [N, vocab]
        return logits

    return score


def padded(parts: Roles, sources: Sequence[Sequence[int]], copies: int) -> NDArray[np.int64]:
    """The sources, so many copies of each, [sources * copies, S]; S is rounded up where padding
    is known."""
    longest = max(map(len, sources))
    if parts.source.pad is not None:
        longest = min(-(-longest // _STEP) * _STEP, parts.source_bound)
    rows = np.full((len(sources), longest), parts.source.pad or 0)  # [sources, S]
    for row, ids in zip(rows, sources, strict=True):
        row[: len(ids)] = ids
    return rows.repeat(copies, axis=0)  # [sources * copies, S]


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
                expected=f"{parts.source_bound} tokens or fewer, both ends counted",
                found=f"{len(ids)} tokens",
            )
    if search.max_length > parts.target_bound:
        fail(
            "generation",
            f"`{graph.name}` makes no sequences of {search.max_length} tokens",
            expected=f"{parts.target_bound} or fewer",
        )
    below = parts.target.type.below
    if below is not None and not 0 <= search.start < below:
        fail(
            "generation",
            f"the target of `{graph.name}` has no such token to start with",
            expected=f"0 to {below - 1}",
            found=str(search.start),
        )
    if together < 1:
        fail(
            "generation",
            "there are no sources in a batch",
            expected="1 or more",
            found=str(together),
        )
