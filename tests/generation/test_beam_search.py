"""Greedy and beam search, compared with all sequences and with known answers."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import pytest
from numpy.typing import NDArray

from archdsl.diagnostics import ArchError, Diagnostic
from archdsl.generation.beam_search import Hypothesis, Penalty, Search, beam_search
from archdsl.generation.processors import Forbid, ForceFirst

BOS, EOS = 0, 1

Scorer: TypeAlias = Callable[[NDArray[np.int64]], NDArray[np.float32]]


def search(
    scorer: Scorer, beams: int, max_length: int, alpha: float = 0.0, **more: Any
) -> tuple[Hypothesis, ...]:
    """Runs a search for one source, with a scorer that ignores the source."""
    defaults: dict[str, Any] = {"start": BOS, "ends": (EOS,), "penalty": Penalty(alpha, 5)}
    asked = Search(**defaults | more, max_length=max_length, beams=beams)
    (found,) = beam_search(lambda prefixes, _: scorer(prefixes), asked)
    return found


def greedy(scorer: Scorer, max_length: int) -> Hypothesis:
    (found,) = search(scorer, 1, max_length)
    return found


def chain(logits: NDArray[np.float32]) -> Scorer:
    """A Markov chain as a scorer: row i has the logits of the token after token i."""
    vocabulary = len(logits)

    def scorer(prefixes: NDArray[np.int64]) -> NDArray[np.float32]:
        assert prefixes.dtype == np.int64
        assert prefixes.min() >= 0
        assert prefixes.max() < vocabulary
        assert (prefixes[:, 0] == BOS).all()
        assert (prefixes[:, 1:] != EOS).all(), "a finished sequence was expanded"
        assert len(np.unique(prefixes, axis=0)) == len(prefixes), "a prefix was scored twice"
        return logits[prefixes[:, -1]]

    return scorer


def from_probabilities(*rows: list[float]) -> Scorer:
    with np.errstate(divide="ignore"):
        return chain(np.log(np.array(rows, dtype=np.float32)))


def counted(scorer: Scorer, shapes: list[tuple[int, ...]]) -> Scorer:
    """The same scorer, which also records the shapes of its inputs."""

    def counting(prefixes: NDArray[np.int64]) -> NDArray[np.float32]:
        shapes.append(prefixes.shape)
        return scorer(prefixes)

    return counting


def random_chain(seed: int, vocabulary: int) -> NDArray[np.float32]:
    table = np.random.default_rng(seed).normal(scale=2, size=(vocabulary, vocabulary))
    return table.astype(np.float32)


def log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    probabilities = np.exp(logits.astype(np.float64))
    result: NDArray[np.float64] = np.log(probabilities / probabilities.sum(-1, keepdims=True))
    return result


def every_finished(logits: NDArray[np.float32], max_length: int) -> dict[Any, float]:
    """All sequences from BOS to EOS of at most `max_length` tokens, with their scores."""
    log_probs = log_softmax(logits)
    inner = [token for token in range(len(logits)) if token != EOS]
    scores = {}
    for length in range(max_length - 1):
        for middle in itertools.product(inner, repeat=length):
            tokens = (BOS, *middle, EOS)
            scores[tokens] = sum(float(log_probs[pair]) for pair in itertools.pairwise(tokens))
    return scores


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.0])
def test_a_beam_wide_enough_finds_all_sequences_best_first(seed: int, alpha: float) -> None:
    logits = random_chain(seed, 4)
    expected = every_finished(logits, 6)
    widest = 4 * 3**4  # all expansions of the last step
    found = search(chain(logits), widest, 6, alpha)
    assert {h.tokens: h.score for h in found} == pytest.approx(expected, abs=1e-9)
    penalised = [h.penalised(Penalty(alpha, 5)) for h in found]
    assert penalised == sorted(penalised, reverse=True)


@pytest.mark.parametrize("seed", range(50))
def test_never_stopping_early_finds_the_best(seed: int) -> None:
    scorer = chain(random_chain(seed, 5))
    hasty = search(scorer, 3, 12)
    patient = search(scorer, 3, 12, early_stopping="never")
    assert len(patient) >= len(hasty)
    assert all(a.score >= b.score for a, b in zip(patient, hasty, strict=False))


def test_stopping_early_can_miss_the_best() -> None:
    rows: Any = [0, 0.4, 0.6, 0], [1, 0, 0, 0], [0, 0.45, 0, 0.55], [0, 1, 0, 0]
    scorer = from_probabilities(*rows)
    hasty = search(scorer, 2, 9)
    patient = search(scorer, 2, 9, early_stopping="never")
    assert [h.tokens for h in hasty] == [(0, 1), (0, 2, 1)]
    assert [h.tokens for h in patient] == [(0, 1), (0, 2, 3, 1)]
    assert np.exp([h.score for h in patient]).tolist() == pytest.approx([0.4, 0.33])


# With alpha 1 the worst of two stays at log(0.05) / (7 / 6), which the hope of a prefix of
# s tokens, log(0.1 * 0.5 ** (s - 1)) / (34 / 6), falls below at s = 19.
@pytest.mark.parametrize(("alpha", "steps"), [(0.0, 2), (1.0, 19)])
def test_never_stops_when_no_prefix_can_score_higher(alpha: float, steps: int) -> None:
    scorer = from_probabilities([0, 0.9, 0.1], [1, 0, 0], [0, 0.5, 0.5])
    shapes: list[tuple[int, ...]] = []
    search(counted(scorer, shapes), 2, 30, alpha, early_stopping="never")
    assert len(shapes) == steps


@pytest.mark.parametrize("seed", range(50))
def test_greedy_takes_the_most_likely_token(seed: int) -> None:
    logits = random_chain(seed, 6)
    log_probs = log_softmax(logits)
    tokens, score = [BOS], 0.0
    while tokens[-1] != EOS and len(tokens) < 8:
        best = int(logits[tokens[-1]].argmax())
        score += log_probs[tokens[-1], best]
        tokens.append(best)
    found = greedy(chain(logits), 8)
    assert found.tokens == tuple(tokens)
    assert found.score == pytest.approx(score, abs=1e-9)
    assert found.finished == (tokens[-1] == EOS)
    assert search(chain(logits), 1, 8) == (found,)


def test_all_live_prefixes_are_scored_in_one_call_and_the_beam_is_refilled() -> None:
    scorer = from_probabilities([0.2, 0.3, 0.25, 0.25], *[[0.2, 0.4, 0.3, 0.1]] * 3)
    shapes: list[tuple[int, ...]] = []
    search(counted(scorer, shapes), 4, 4)
    # One of four ends at the first step and two at the second, so that 3 and then 2 live on.
    assert shapes == [(1, 1), (3, 2), (2, 3)]


@pytest.mark.parametrize("seed", range(20))
def test_results_are_ordered_by_score_and_end_with_the_end_token(seed: int) -> None:
    logits = random_chain(seed, 7)
    logits[:, EOS] += 2  # so that the most likely sequences end
    found = search(chain(logits), 5, 20)
    assert 1 <= len(found) <= 5
    scores = [h.score for h in found]
    assert scores == sorted(scores, reverse=True)
    assert search(chain(logits), 5, 20, best=2) == found[:2]
    for hypothesis in found:
        assert hypothesis.finished
        assert hypothesis.tokens[0] == BOS
        assert hypothesis.tokens.index(EOS) == len(hypothesis.tokens) - 1


def test_the_length_penalty_favours_long_sequences_and_leaves_scores_alone() -> None:
    rows: Any = [0, 0.2, 0.41, 0.39, 0, 0], [1, 0, 0, 0, 0, 0], [0, 0.5, 0, 0, 0.5, 0]
    more: Any = [0, 0, 0, 0, 0, 1], [0.1, 0.9, 0, 0, 0, 0], [0, 1, 0, 0, 0, 0]
    scorer = from_probabilities(*rows, *more)
    plain = search(scorer, 3, 5)
    penalised = search(scorer, 3, 5, alpha=2.0)
    assert [h.tokens for h in plain] == [(0, 3, 5, 1), (0, 2, 1), (0, 1)]
    assert [h.tokens for h in penalised] == [(0, 3, 5, 1), (0, 2, 4, 1), (0, 2, 1)]
    assert np.exp([h.score for h in penalised]) == pytest.approx([0.39, 0.1845, 0.205])


def test_ties_go_to_the_better_prefix_then_to_the_lower_token() -> None:
    scorer = chain(np.zeros((5, 5), dtype=np.float32))
    found = search(scorer, 3, 4, early_stopping="never")
    assert [h.tokens for h in found] == [(0, 1), (0, 0, 1), (0, 0, 0, 1)]
    many = search(chain(np.zeros((40, 40), dtype=np.float32)), 30, 2, ends=(39,))
    assert [h.tokens for h in many] == [(0, token) for token in range(30)]


def test_a_forbidden_token_is_never_taken() -> None:
    scorer = from_probabilities([0, 0, 1], [1, 0, 0], [0, 0.5, 0.5])
    found = search(scorer, 3, 4)
    assert [h.tokens for h in found] == [(0, 2, 1), (0, 2, 2, 1)]


def test_unfinished_sequences_are_returned_if_none_ended() -> None:
    scorer = from_probabilities([0, 0, 0.6, 0.4], *[[0, 0, 0.6, 0.4]] * 3)
    found = search(scorer, 2, 3)
    assert [h.tokens for h in found] == [(0, 2, 2), (0, 2, 3)]
    assert not any(h.finished for h in found)
    assert not greedy(scorer, 2).finished


def test_one_token_can_start_and_end_a_sequence() -> None:
    logits = np.log(np.array([[0.3, 0.7], [0.6, 0.4]], dtype=np.float32))
    (found,) = search(lambda prefixes: logits[prefixes[:, -1]], 1, 9, ends=(BOS,))
    assert found.tokens == (0, 1, 0)
    assert found.finished


def test_large_logits_do_not_overflow() -> None:
    scorer = chain(np.array([[0, 3e4, 2.9e4]] * 3, dtype=np.float32))
    assert greedy(scorer, 4).score == 0.0


# -- options for other libraries --


def test_refill() -> None:
    scorer = from_probabilities(
        [0, 0.5, 0.3, 0.2], [1, 0, 0, 0], [0, 0.1, 0.9, 0], [0, 1, 0, 0]
    )
    # (0, 1) ends at the first step, and (0, 3) is the third best of it.
    assert [h.tokens for h in search(scorer, 2, 9)] == [(0, 1), (0, 2, 1)]
    assert [h.tokens for h in search(scorer, 2, 9, refill=True)] == [(0, 1), (0, 3, 1)]


def test_cut_off() -> None:
    scorer = from_probabilities([0, 0.2, 0.8], [1, 0, 0], [0, 0, 1])
    assert [h.tokens for h in search(scorer, 2, 4)] == [(0, 1)]
    found = search(scorer, 2, 4, cut_off=True)
    assert [h.tokens for h in found] == [(0, 2, 2, 2), (0, 1)]
    assert [h.finished for h in found] == [False, True]


def test_early_stopping_false_can_miss_the_best() -> None:
    # (0, 2, 3) is worse than (0, 1) for its length, and nearly certain to become longer.
    rows: Any = [0, 0.6, 0.4, 0], [1, 0, 0, 0], [0, 0.925, 0, 0.075], [0, 0.01, 0, 0.99]
    scorer = from_probabilities(*rows)
    more: Any = {"penalty": Penalty(2.0), "refill": True, "cut_off": True}
    for early_stopping in (True, False):
        found = search(scorer, 2, 12, early_stopping=early_stopping, **more)
        assert [h.tokens for h in found] == [(0, 2, 1), (0, 1)]
    found = search(scorer, 2, 12, early_stopping="never", **more)
    assert [h.tokens for h in found] == [(0, 2, *[3] * 10), (0, 2, *[3] * 9, 1)]


@pytest.mark.parametrize("seed", range(20))
def test_sources_in_one_batch_are_independent(seed: int) -> None:
    chains = np.stack([random_chain(3 * seed + i, 7) for i in range(3)])
    chains[1, :, EOS] += 4  # this one ends first
    asked = Search(BOS, (EOS,), 15, 4, Penalty(0.7), "never", refill=True, cut_off=True)
    seen: list[set[int]] = []

    def scorer(prefixes: NDArray[np.int64], of: NDArray[np.int64]) -> NDArray[np.float32]:
        assert (np.diff(of) >= 0).all()
        seen.append({*of.tolist()})
        return chains[of, prefixes[:, -1]]

    together = beam_search(scorer, asked, sources=3)
    for i, found in enumerate(together):
        (alone,) = beam_search(lambda prefixes, _, i=i: chains[i, prefixes[:, -1]], asked)
        assert found == alone
    assert seen[0] == {0, 1, 2}


def test_several_tokens_can_end_a_sequence() -> None:
    scorer = from_probabilities([0, 0.3, 0.3, 0.4], *[[0, 0.3, 0.3, 0.4]] * 3)
    found = search(scorer, 4, 9, ends=(1, 2), refill=True)
    assert [h.tokens for h in found] == [(0, 1), (0, 2), (0, 3, 1), (0, 3, 2)]
    assert all(h.finished for h in found)


# -- errors --


def refusal(act: Callable[[], object]) -> Diagnostic:
    with pytest.raises(ArchError) as caught:
        act()
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.code == "generation"
    return diagnostic


@pytest.mark.parametrize(
    ("changes", "what", "found"),
    [
        ({"beams": 0}, "the number of beams", "0"),
        ({"beams": 10, "max_length": 3}, "the number of beams", "10"),
        ({"beams": 4, "max_length": 2}, "the number of beams", "4"),
        ({"best": 0}, "the number of results", "0"),
        ({"best": 3}, "the number of results", "3"),
        ({"max_length": 1}, "the maximum length", "1"),
        ({"penalty": Penalty(-11)}, "the length penalty", "-11"),
        ({"penalty": Penalty(float("nan"))}, "the length penalty", "nan"),
        ({"penalty": Penalty(1, -1)}, "the length penalty's offset", "-1"),
        ({"early_stopping": "done"}, "early_stopping", "done"),
        ({"ends": (EOS, 3)}, "the end token", "3"),
        ({"ends": (-1,)}, "the end token", "-1"),
        ({"processors": (Forbid(((2, 4),)),)}, "a token of the logits processors", "4"),
        ({"processors": (ForceFirst(5),)}, "a token of the logits processors", "5"),
    ],
)
def test_options_out_of_range(changes: dict[str, Any], what: str, found: str) -> None:
    request: dict[str, Any] = {"beams": 2, "max_length": 9} | changes
    diagnostic = refusal(lambda: search(chain(random_chain(0, 3)), **request))
    assert diagnostic.message == f"{what} is out of range"
    assert diagnostic.found == found


def test_as_many_beams_as_the_vocabulary_allows() -> None:
    scorer = chain(random_chain(0, 3))
    assert len(search(scorer, 6, 3)) == 3  # all that can finish in three tokens
    diagnostic = refusal(lambda: search(scorer, 7, 3))
    assert diagnostic.expected == "at most 6, with 3 tokens and length 3"


def test_all_errors_are_reported_at_once() -> None:
    with pytest.raises(ArchError) as caught:
        search(chain(random_chain(0, 3)), 0, 1, -11.0)
    assert len(caught.value.diagnostics) == 3


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_logits_must_be_finite(wrong: float) -> None:
    logits = random_chain(0, 4)
    logits[0, 2] = 9
    logits[2] = wrong
    diagnostic = refusal(lambda: greedy(chain(logits), 5))
    assert diagnostic.message == "the logits of the next token are not finite after 2 tokens"
    assert diagnostic.found == f"a largest logit of {wrong}"


@pytest.mark.parametrize("shape", [(1,), (2, 4), (1, 1, 4), (1, 0)])
def test_a_scorer_must_give_a_row_for_each_prefix(shape: tuple[int, ...]) -> None:
    diagnostic = refusal(lambda: greedy(lambda _: np.zeros(shape, np.float32), 5))
    assert diagnostic.expected == "[1, vocabulary]"
    assert diagnostic.found == str(list(shape))
