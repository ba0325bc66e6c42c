"""What sampling keeps of the logits, beside the warpers of transformers, to the last bit.

Both get float64, so that no sum of float32 probabilities rounds across a border.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from archdsl.generation.sampling import Sampling, filter_scores

pytestmark = pytest.mark.reference("torch", "transformers")

LARGEST = float(np.finfo(np.float32).max)
V = 101

SAMPLINGS = [
    Sampling(),
    Sampling(temperature=0.7),
    Sampling(temperature=1e-6),
    Sampling(temperature=50.0),
    Sampling(top_k=1),
    Sampling(top_k=7),
    Sampling(top_k=5000),
    Sampling(top_p=0.05),
    Sampling(top_p=0.5),
    Sampling(top_p=0.95),
    Sampling(min_p=0.0),
    Sampling(min_p=0.1),
    Sampling(min_p=1.0),
    Sampling(repetition_penalty=1.3),
    Sampling(repetition_penalty=0.5),
    Sampling(0.8, 40, 0.95, 0.05, 1.1),
    Sampling(1.5, 20, 0.6, 0.2, 2.0),
]


def random_logits(random: np.random.Generator) -> np.ndarray:
    return random.normal(0, 3, V)


def with_ties(random: np.random.Generator) -> np.ndarray:
    return random.integers(-2, 3, V).astype(float)


def all_equal(random: np.random.Generator) -> np.ndarray:
    return np.zeros(V)


def extreme(random: np.random.Generator) -> np.ndarray:
    logits = random.normal(0, 1, V) * 10.0 ** random.integers(-30, 38, V)
    logits[:4] = LARGEST, -LARGEST, 0.0, -0.0
    return logits


def forbidden(random: np.random.Generator) -> np.ndarray:
    return np.where(random.random(V) < 0.5, random.normal(0, 3, V), -np.inf)


# Which of equal logits top-p leaves in is chance in transformers, whose sort is not stable;
# how many it leaves is not.
TIED = (with_ties, all_equal)


def theirs(logits: np.ndarray, seen: list[int], sampling: Sampling) -> np.ndarray:
    """The scores after transformers' own list of processors for these settings."""
    import torch
    from transformers.generation import logits_process as library

    processors: list[Any] = []
    if sampling.repetition_penalty != 1:
        processors += [library.RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty)]
    processors += [library.TemperatureLogitsWarper(float(sampling.temperature))]
    if sampling.top_k is not None:
        processors += [library.TopKLogitsWarper(sampling.top_k)]
    if sampling.top_p is not None:
        processors += [library.TopPLogitsWarper(sampling.top_p)]
    if sampling.min_p is not None:
        processors += [library.MinPLogitsWarper(sampling.min_p)]
    scores = torch.from_numpy(logits)[None].clone()
    ids = torch.tensor([seen])
    return library.LogitsProcessorList(processors)(ids, scores)[0].numpy()


@pytest.mark.parametrize("sampling", SAMPLINGS, ids=str)
@pytest.mark.parametrize(
    "make", [random_logits, with_ties, all_equal, extreme, forbidden], ids=lambda m: m.__name__
)
def test_what_is_kept_is_what_transformers_keeps(
    sampling: Sampling, make: Callable[[np.random.Generator], np.ndarray]
) -> None:
    for seed in range(5):
        random = np.random.default_rng(seed)
        logits = make(random).astype(np.float32).astype(np.float64)
        seen = random.integers(0, V, 30).tolist()
        ours = filter_scores(logits, seen, sampling)
        expected = theirs(logits, seen, sampling)
        if make in TIED:
            ours, expected = np.sort(ours), np.sort(expected)
        np.testing.assert_array_equal(ours, expected)
