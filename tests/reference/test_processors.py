"""What our logits processors do to scores, beside those of transformers, to the last bit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from archdsl.generation.processors import (
    Forbid,
    ForbidFirst,
    ForceFirst,
    ForceLast,
    MinLength,
    NoRepeat,
    Processor,
    Progress,
    apply_processors,
)

pytestmark = pytest.mark.reference("torch", "transformers")

V = 12
END, PROMPT, LONGEST = 3, 4, 9

CASES: dict[str, tuple[Processor, Callable[[Any, int], Any]]] = {
    "bad words": (
        Forbid(((5,), (1, 2), (2, 1, 6))),
        lambda their, prompt: their.NoBadWordsLogitsProcessor([[5], [1, 2], [2, 1, 6]]),
    ),
    "no pair twice": (NoRepeat(2), lambda their, prompt: their.NoRepeatNGramLogitsProcessor(2)),
    "no token twice": (
        NoRepeat(1),
        lambda their, prompt: their.NoRepeatNGramLogitsProcessor(1),
    ),
    "no four twice": (
        NoRepeat(4),
        lambda their, prompt: their.NoRepeatNGramLogitsProcessor(4),
    ),
    "suppressed": (
        Forbid(((5,), (7,))),
        lambda their, prompt: their.SuppressTokensLogitsProcessor([5, 7]),
    ),
    "suppressed first": (
        ForbidFirst((5, 7)),
        lambda their, prompt: their.SuppressTokensAtBeginLogitsProcessor([5, 7], prompt),
    ),
    "least length": (
        MinLength((END, 8), length=6),
        lambda their, prompt: their.MinLengthLogitsProcessor(6, [END, 8]),
    ),
    "least new tokens": (
        MinLength((END,), new=3),
        lambda their, prompt: their.MinNewTokensLengthLogitsProcessor(prompt, 3, END),
    ),
    "forced first": (
        ForceFirst(6),
        lambda their, prompt: their.ForcedBOSTokenLogitsProcessor(6),
    ),
    "forced last": (
        ForceLast((END, 8)),
        lambda their, prompt: their.ForcedEOSTokenLogitsProcessor(LONGEST, [END, 8]),
    ),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("prompt", [1, PROMPT])
def test_a_processor_does_what_that_of_transformers_does(name: str, prompt: int) -> None:
    import torch
    from transformers.generation import logits_process as library

    ours, make = CASES[name]
    theirs = make(library, prompt)
    random = np.random.default_rng(prompt)
    changed = 0
    for length in range(prompt, LONGEST):
        rows = random.integers(0, 4, (5, length))
        scores = random.normal(size=(5, V))
        at = Progress(rows, length - prompt, [LONGEST - length] * 5)
        found = apply_processors(scores, [ours], at)
        expected = theirs(torch.from_numpy(rows), torch.from_numpy(scores.copy())).numpy()
        np.testing.assert_array_equal(found, expected)
        changed += not np.array_equal(found, scores)
    assert changed or (name, prompt) == ("forced first", PROMPT)


@pytest.mark.parametrize("longest", [1, 2, 5])
def test_the_token_after_a_forced_one_counts_as_the_first(longest: int) -> None:
    scores = np.zeros((2, V))
    rules = [ForbidFirst((5,), after_forced=True), ForceFirst(6)]
    for made in range(longest):
        # After a start token alone a token is forced, after a longer prompt none is.
        rows = [[0] * (1 + made), [0] * (3 + made)]
        found = apply_processors(scores, rules, Progress(rows, made, [9, 9]))
        assert (found[0, 6], found[0, 5]) == (0, 0 if made > 1 else -np.inf)
        assert (found[1, 6], found[1, 5]) == (0, 0 if made else -np.inf)
