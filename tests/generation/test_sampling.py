"""Sampling: which tokens are kept, how often each is sampled, and errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from archdsl.diagnostics import ArchError, Diagnostic
from archdsl.generation.sampling import Sampler, Sampling, filter_scores

LOGITS = np.log([[0.4, 0.3, 0.15, 0.1, 0.05]]).astype(np.float32)


def refusals(act: Callable[[], object]) -> tuple[Diagnostic, ...]:
    with pytest.raises(ArchError) as caught:
        act()
    assert {each.code for each in caught.value.diagnostics} == {"generation"}
    return caught.value.diagnostics


def draw(sampling: Sampling, steps: int, seed: int = 0, rows: int = 1) -> np.ndarray:
    """Tokens [steps, rows], each step from `LOGITS`."""
    sampler = Sampler(sampling, seed, rows)
    logits = np.repeat(LOGITS, rows, axis=0)
    return np.array([sampler.pick(logits, [[]] * rows)[0] for _ in range(steps)])


# Kept tokens


@pytest.mark.parametrize(
    ("sampling", "kept"),
    [
        (Sampling(), [0, 1, 2, 3, 4]),
        (Sampling(temperature=0), [0]),
        (Sampling(top_k=2), [0, 1]),
        (Sampling(top_k=1), [0]),
        (Sampling(top_k=99), [0, 1, 2, 3, 4]),
        (Sampling(top_k=0), [0, 1, 2, 3, 4]),
        (Sampling(top_p=0.5), [0, 1]),
        (Sampling(top_p=0.01), [0]),
        (Sampling(top_p=1), [0, 1, 2, 3, 4]),
        (Sampling(min_p=0.3), [0, 1, 2]),
        (Sampling(min_p=1), [0]),
        (Sampling(min_p=0), [0, 1, 2, 3, 4]),
        # Among the two that are left, the first has 4/7 and is enough.
        (Sampling(top_k=2, top_p=0.55), [0]),
        (Sampling(top_p=0.55), [0, 1]),
        # Squaring the probabilities leaves the last below a tenth of the first.
        (Sampling(min_p=0.1, temperature=0.5), [0, 1, 2]),
        (Sampling(min_p=0.1), [0, 1, 2, 3, 4]),
    ],
)
def test_kept_tokens(sampling: Sampling, kept: list[int]) -> None:
    scores = filter_scores(LOGITS[0].astype(np.float64), [], sampling)
    assert np.flatnonzero(scores > -np.inf).tolist() == kept


def test_the_repetition_penalty_applies_once_per_token() -> None:
    scores = np.array([2.0, -2.0, 1.0, 0.0, -np.inf])
    sampling = Sampling(repetition_penalty=2)
    warped = filter_scores(scores, [0, 1, 1, 4, 99], sampling)
    assert warped.tolist() == [1.0, -4.0, 1.0, 0.0, -np.inf]
    assert scores.tolist() == [2.0, -2.0, 1.0, 0.0, -np.inf]


def test_the_penalty_applies_to_greedy_choice() -> None:
    sampler = Sampler(Sampling(temperature=0, repetition_penalty=3), seed=0, rows=2)
    tokens, log_probs = sampler.pick(np.array([[2.0, 1.0], [2.0, 1.0]]), [[0], []])
    assert tokens.tolist() == [1, 0]
    assert log_probs == pytest.approx(np.log([1 / (1 + np.e), np.e / (1 + np.e)]))


def test_of_equal_logits_the_first_is_taken() -> None:
    sampler = Sampler(Sampling(temperature=0), seed=0, rows=1)
    assert sampler.pick(np.array([[1.0, 5.0, 5.0]]), [[]])[0].tolist() == [1]


# Frequencies


@pytest.mark.parametrize(
    "sampling", [Sampling(), Sampling(temperature=2), Sampling(0.5, top_k=4, min_p=0.1)]
)
def test_frequencies_match_probabilities(sampling: Sampling) -> None:
    counts = np.bincount(draw(sampling, 100, rows=50).reshape(-1), minlength=5)
    weights = np.exp(filter_scores(LOGITS[0].astype(np.float64), [], sampling))
    expected = weights / weights.sum() * counts.sum()
    assert counts[expected == 0].sum() == 0
    drawn = expected > 0
    chi_square = ((counts - expected)[drawn] ** 2 / expected[drawn]).sum()
    assert chi_square < 18.5  # the 0.1 % point of four degrees of freedom


def test_the_seed_determines_the_tokens() -> None:
    first, same, other = (draw(Sampling(), 50, seed).tolist() for seed in (3, 3, 4))
    assert first == same != other


def test_a_row_does_not_depend_on_other_rows() -> None:
    alone, among = draw(Sampling(top_p=0.9), 50), draw(Sampling(top_p=0.9), 50, rows=3)
    assert among[:, :1].tolist() == alone.tolist()
    assert among[:, 0].tolist() != among[:, 1].tolist() != among[:, 2].tolist()


def test_minus_infinity_is_never_sampled() -> None:
    logits = np.full((100, 4), -np.inf, np.float32)
    logits[:, 2] = -1e38
    sampler = Sampler(Sampling(temperature=100), seed=1, rows=100)
    tokens, log_probs = sampler.pick(logits, [[]] * 100)
    assert set(tokens.tolist()) == {2}
    assert set(log_probs.tolist()) == {0.0}


def test_the_extremes_of_float32_stay_in_range() -> None:
    largest = float(np.finfo(np.float32).max)
    logits = np.array([[largest, -largest, 0, largest / 2]], np.float32)
    sampling = Sampling(1e-6, top_k=3, top_p=0.99, min_p=0.01, repetition_penalty=100)
    tokens, log_probs = Sampler(sampling, 0, 1).pick(logits, [[0]])
    assert (tokens.tolist(), log_probs.tolist()) == ([3], [-largest / 2])


def test_log_probabilities_are_the_models_own() -> None:
    sampler = Sampler(Sampling(temperature=0.3, top_k=2), seed=5, rows=50)
    logits = np.repeat(LOGITS, 50, axis=0)
    tokens, log_probs = sampler.pick(logits, [[0]] * 50)
    assert (tokens.dtype, log_probs.dtype) == (np.int64, np.float64)
    expected = np.log([0.4, 0.3, 0.15, 0.1, 0.05])[tokens]
    assert log_probs == pytest.approx(expected, abs=1e-6)


def test_no_rows_is_no_tokens() -> None:
    tokens, log_probs = Sampler(Sampling(), 0, 0).pick(np.empty((0, 5), np.float32), [])
    assert (tokens.shape, tokens.dtype, log_probs.shape) == ((0,), np.int64, (0,))


# Errors


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"temperature": -1.0}, "the temperature is out of range"),
        ({"temperature": 1e-9}, "the temperature is out of range"),
        ({"temperature": float("nan")}, "the temperature is out of range"),
        ({"temperature": float("inf")}, "the temperature is out of range"),
        ({"top_k": -1}, "top-k is out of range"),
        ({"top_k": 2.5}, "top-k is out of range"),
        ({"top_p": 0.0}, "top-p is out of range"),
        ({"top_p": 1.5}, "top-p is out of range"),
        ({"top_p": float("nan")}, "top-p is out of range"),
        ({"min_p": -0.1}, "min-p is out of range"),
        ({"min_p": 1.1}, "min-p is out of range"),
        ({"repetition_penalty": 0.0}, "the repetition penalty is out of range"),
        ({"repetition_penalty": float("inf")}, "the repetition penalty is out of range"),
    ],
)
def test_numbers_out_of_range(given: dict[str, Any], message: str) -> None:
    (diagnostic,) = refusals(lambda: Sampling(**given))
    assert diagnostic.message == message
    assert diagnostic.expected
    assert diagnostic.found == str(next(iter(given.values())))


def test_all_errors_are_reported_at_once() -> None:
    assert len(refusals(lambda: Sampling(-1, -1, -1, -1, -1))) == 5


def test_a_seed_below_zero() -> None:
    (diagnostic,) = refusals(lambda: Sampler(Sampling(), -1, 1))
    assert (diagnostic.message, diagnostic.found) == ("the seed is negative", "-1")


@pytest.mark.parametrize("wrong", [[1.0, np.nan], [1.0, np.inf], [-np.inf, -np.inf]])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_must_be_finite(wrong: list[float], temperature: float) -> None:
    sampler = Sampler(Sampling(temperature), 0, 2)
    logits = np.array([[1.0, 2.0], wrong], np.float32)
    (diagnostic,) = refusals(lambda: sampler.pick(logits, [[], []]))
    assert diagnostic.message == "the logits of the next token are not finite"
    assert diagnostic.found == f"a largest logit of {np.max(wrong)}"


@pytest.mark.parametrize(
    ("logits", "seen"),
    [
        (np.zeros((3, 4)), [[], []]),
        (np.zeros((2, 0)), [[], []]),
        (np.zeros(4), [[], []]),
        (np.zeros((2, 4)), [[]]),
    ],
)
def test_one_row_for_each_text(logits: np.ndarray, seen: list[list[int]]) -> None:
    (diagnostic,) = refusals(lambda: Sampler(Sampling(), 0, 2).pick(logits, seen))
    assert diagnostic.expected == "logits [2, vocabulary], and 2 rows of tokens"
