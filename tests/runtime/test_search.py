"""Greedy and beam search: against every sequence there is, and against a published decoder."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import itertools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from archdsl.diagnostics import ArchError, Diagnostic
from archdsl.runtime.search import Scorer, beam_search, greedy
from archdsl.runtime.tokenizers import read_vocabulary

BOS, EOS = 0, 1


def chain(logits: NDArray[np.float32]) -> Scorer:
    """A Markov chain as a scorer: row i holds the logits of what follows token i."""
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
    """The same scorer, which also writes down the shapes that it is given."""

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
    widest = 4 * 3**4  # the expansions of the last step: nothing is ever left out
    found = beam_search(chain(logits), BOS, EOS, widest, 6, alpha)
    assert {h.tokens: h.score for h in found} == pytest.approx(expected, abs=1e-9)
    penalised = [h.penalised(alpha) for h in found]
    assert penalised == sorted(penalised, reverse=True)


@pytest.mark.parametrize("seed", range(50))
def test_patience_never_finds_less(seed: int) -> None:
    scorer = chain(random_chain(seed, 5))
    hasty = beam_search(scorer, BOS, EOS, 3, 12)
    patient = beam_search(scorer, BOS, EOS, 3, 12, early_stop=False)
    assert len(patient) >= len(hasty)
    assert all(a.score >= b.score for a, b in zip(patient, hasty, strict=False))


def test_stopping_early_can_miss_what_patience_finds() -> None:
    rows: Any = [0, 0.4, 0.6, 0], [1, 0, 0, 0], [0, 0.45, 0, 0.55], [0, 1, 0, 0]
    scorer = from_probabilities(*rows)
    hasty = beam_search(scorer, BOS, EOS, 2, 9)
    patient = beam_search(scorer, BOS, EOS, 2, 9, early_stop=False)
    assert [h.tokens for h in hasty] == [(0, 1), (0, 2, 1)]
    assert [h.tokens for h in patient] == [(0, 1), (0, 2, 3, 1)]
    assert np.exp([h.score for h in patient]).tolist() == pytest.approx([0.4, 0.33])


# With alpha 1 the worst of two stays at log(0.05) / (7 / 6), which the hope of a prefix of
# s tokens, log(0.1 * 0.5 ** (s - 1)) / (34 / 6), falls below at s = 19.
@pytest.mark.parametrize(("alpha", "steps"), [(0.0, 2), (1.0, 19)])
def test_patience_ends_when_nothing_can_overtake(alpha: float, steps: int) -> None:
    scorer = from_probabilities([0, 0.9, 0.1], [1, 0, 0], [0, 0.5, 0.5])
    shapes: list[tuple[int, ...]] = []
    beam_search(counted(scorer, shapes), BOS, EOS, 2, 30, alpha, early_stop=False)
    assert len(shapes) == steps


@pytest.mark.parametrize("seed", range(50))
def test_greedy_takes_the_likeliest_token_each_time(seed: int) -> None:
    logits = random_chain(seed, 6)
    log_probs = log_softmax(logits)
    tokens, score = [BOS], 0.0
    while tokens[-1] != EOS and len(tokens) < 8:
        best = int(logits[tokens[-1]].argmax())
        score += log_probs[tokens[-1], best]
        tokens.append(best)
    found = greedy(chain(logits), BOS, EOS, 8)
    assert found.tokens == tuple(tokens)
    assert found.score == pytest.approx(score, abs=1e-9)
    assert found.finished == (tokens[-1] == EOS)
    assert beam_search(chain(logits), BOS, EOS, 1, 8) == (found,)


def test_all_live_prefixes_are_scored_in_one_call_and_the_beam_is_refilled() -> None:
    scorer = from_probabilities([0.2, 0.3, 0.25, 0.25], *[[0.2, 0.4, 0.3, 0.1]] * 3)
    shapes: list[tuple[int, ...]] = []
    beam_search(counted(scorer, shapes), BOS, EOS, 4, 4)
    # One of four ends at the first step and two at the second, so that 3 and then 2 live on.
    assert shapes == [(1, 1), (3, 2), (2, 3)]


@pytest.mark.parametrize("seed", range(20))
def test_results_are_ordered_by_score_and_end_with_the_end_token(seed: int) -> None:
    logits = random_chain(seed, 7)
    logits[:, EOS] += 2  # so that the likeliest sequences do end
    found = beam_search(chain(logits), BOS, EOS, 5, 20)
    assert 1 <= len(found) <= 5
    scores = [h.score for h in found]
    assert scores == sorted(scores, reverse=True)
    assert beam_search(chain(logits), BOS, EOS, 5, 20, best=2) == found[:2]
    for hypothesis in found:
        assert hypothesis.finished
        assert hypothesis.tokens[0] == BOS
        assert hypothesis.tokens.index(EOS) == len(hypothesis.tokens) - 1


def test_the_length_penalty_favours_long_sequences_and_leaves_scores_alone() -> None:
    rows: Any = [0, 0.2, 0.41, 0.39, 0, 0], [1, 0, 0, 0, 0, 0], [0, 0.5, 0, 0, 0.5, 0]
    more: Any = [0, 0, 0, 0, 0, 1], [0.1, 0.9, 0, 0, 0, 0], [0, 1, 0, 0, 0, 0]
    scorer = from_probabilities(*rows, *more)
    plain = beam_search(scorer, BOS, EOS, 3, 5)
    penalised = beam_search(scorer, BOS, EOS, 3, 5, length_penalty=2.0)
    assert [h.tokens for h in plain] == [(0, 3, 5, 1), (0, 2, 1), (0, 1)]
    assert [h.tokens for h in penalised] == [(0, 3, 5, 1), (0, 2, 4, 1), (0, 2, 1)]
    assert np.exp([h.score for h in penalised]) == pytest.approx([0.39, 0.1845, 0.205])


def test_ties_go_to_the_better_prefix_then_to_the_lower_token() -> None:
    scorer = chain(np.zeros((5, 5), dtype=np.float32))
    found = beam_search(scorer, BOS, EOS, 3, 4, early_stop=False)
    assert [h.tokens for h in found] == [(0, 1), (0, 0, 1), (0, 0, 0, 1)]
    many = beam_search(chain(np.zeros((40, 40), dtype=np.float32)), BOS, 39, 30, 2)
    assert [h.tokens for h in many] == [(0, token) for token in range(30)]


def test_a_forbidden_token_is_never_taken() -> None:
    scorer = from_probabilities([0, 0, 1], [1, 0, 0], [0, 0.5, 0.5])
    found = beam_search(scorer, BOS, EOS, 3, 4)
    assert [h.tokens for h in found] == [(0, 2, 1), (0, 2, 2, 1)]


def test_what_has_not_finished_is_returned_where_nothing_has() -> None:
    scorer = from_probabilities([0, 0, 0.6, 0.4], *[[0, 0, 0.6, 0.4]] * 3)
    found = beam_search(scorer, BOS, EOS, 2, 3)
    assert [h.tokens for h in found] == [(0, 2, 2), (0, 2, 3)]
    assert not any(h.finished for h in found)
    assert not greedy(scorer, BOS, EOS, 2).finished


def test_one_token_can_start_and_end_a_sequence() -> None:
    logits = np.log(np.array([[0.3, 0.7], [0.6, 0.4]], dtype=np.float32))
    found = greedy(lambda prefixes: logits[prefixes[:, -1]], 0, 0, 9)
    assert found.tokens == (0, 1, 0)
    assert found.finished


def test_large_logits_do_not_overflow() -> None:
    scorer = chain(np.array([[0, 3e4, 2.9e4]] * 3, dtype=np.float32))
    assert greedy(scorer, BOS, EOS, 4).score == 0.0


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
        ({"length_penalty": -0.1}, "the length penalty", "-0.1"),
        ({"length_penalty": float("nan")}, "the length penalty", "nan"),
        ({"eos": 3}, "the number of the end token", "3"),
        ({"eos": -1}, "the number of the end token", "-1"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused(
    changes: dict[str, Any], what: str, found: str
) -> None:
    scorer = chain(random_chain(0, 3))
    request: dict[str, Any] = {"bos": BOS, "eos": EOS, "beams": 2, "max_length": 9} | changes
    diagnostic = refusal(lambda: beam_search(scorer, **request))
    assert diagnostic.message == f"{what} is out of range"
    assert diagnostic.found == found


def test_as_many_beams_as_the_vocabulary_allows_are_allowed() -> None:
    scorer = chain(random_chain(0, 3))
    assert len(beam_search(scorer, BOS, EOS, 6, 3)) == 3  # all that can finish in three tokens
    diagnostic = refusal(lambda: beam_search(scorer, BOS, EOS, 7, 3))
    assert diagnostic.expected == "at most 6, with 3 tokens and length 3"


def test_every_mistake_of_a_request_is_told() -> None:
    with pytest.raises(ArchError) as caught:
        beam_search(chain(random_chain(0, 3)), BOS, EOS, 0, 1, -1.0)
    assert len(caught.value.diagnostics) == 3


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_logits_that_leave_no_choice_are_refused(wrong: float) -> None:
    logits = random_chain(0, 4)
    logits[0, 2] = 9
    logits[2] = wrong
    diagnostic = refusal(lambda: greedy(chain(logits), BOS, EOS, 5))
    assert diagnostic.message == "after 2 tokens, the logits of the next one are not finite"
    assert diagnostic.found == f"a largest logit of {wrong}"


@pytest.mark.parametrize("shape", [(1,), (2, 4), (1, 1, 4), (1, 0)])
def test_a_scorer_must_give_a_row_for_each_prefix(shape: tuple[int, ...]) -> None:
    diagnostic = refusal(lambda: greedy(lambda _: np.zeros(shape, np.float32), BOS, EOS, 5))
    assert diagnostic.expected == "[1, vocabulary]"
    assert diagnostic.found == str(list(shape))


class Annalog:
    """The trained encoder-decoder of PyPI's annalog, and its own search."""

    def __init__(self) -> None:
        self.torch: Any = pytest.importorskip("torch", reason="runs annalog's own decoder")
        spec = importlib.util.find_spec("annalog")
        if spec is None or spec.origin is None:
            pytest.skip("annalog is not installed: its beam search is the reference")
        folder = Path(spec.origin).parent
        # Its package imports chemistry toolkits that decoding does not use.
        package = ModuleType("annalog_files")
        package.__path__ = [str(folder / "model_files")]
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(sys.modules, "annalog_files", package)
            patch.setitem(sys.modules, "partialsmiles", SimpleNamespace())
            patch.setitem(sys.modules, "rdkit", SimpleNamespace(Chem=None))
            network: Any = importlib.import_module("annalog_files.seq2seq_attention")
            self.decoding: Any = importlib.import_module("annalog_files.multi_gen_final")

        data = folder / "ckpt_and_vocab"
        self.tokenizer = read_vocabulary(data / "stereo_experiment_vocab_ttf.pkl")
        stoi = {token: number for number, token in enumerate(self.tokenizer.tokens)}
        vocab = SimpleNamespace(itos=self.tokenizer.tokens, stoi=stoi)
        named = {"init_token": "<sos>", "eos_token": "<eos>", "pad_token": "<pad>"}
        tokenize = self.decoding.tokenizer.tokenize
        self.field = SimpleNamespace(vocab=vocab, tokenize=tokenize, **named)
        sizes = (59, 256, 3, 8, 512, 0.1, "cpu", 102)
        parts = network.Encoder(*sizes), network.Decoder(*sizes)
        self.model: Any = network.Seq2Seq(*parts, 1, 1, "cpu").eval()
        weights = self.torch.load(data / "Lev_extended.pt", "cpu", weights_only=True)
        self.model.load_state_dict(weights)

    def search(self, molecule: str, beams: int, length: int) -> list[tuple[str, float]]:
        """Its own beam search: the molecules found and their scores, best first."""
        result: list[tuple[str, float]] = self.decoding.get_sim_smiles_decoding(
            molecule, self.field, self.field, self.model, "cpu", length, beams, 1.0
        )
        return result

    def log_probability(self, molecule: str, analogue: str) -> float:
        """What its own teacher-forced likelihood says of one result."""
        with self.torch.no_grad():
            nll, _ = self.decoding.compute_nll(
                molecule, analogue, self.field, self.field, self.model, "cpu"
            )
        return -float(nll)

    def scorer(self, molecule: str) -> Scorer:
        torch, model = self.torch, self.model
        source = torch.tensor([self.tokenizer.encode(molecule, bos=True, eos=True)])
        mask = model.make_src_mask(source)
        with torch.no_grad():
            memory = model.encoder(source, mask)

        def scorer(prefixes: NDArray[np.int64]) -> NDArray[np.float32]:
            targets = torch.from_numpy(prefixes)
            causal = model.make_trg_mask(targets)
            memories = memory.expand(len(prefixes), -1, -1)
            with torch.no_grad():
                logits, _ = model.decoder(targets, memories, causal, mask)
            result: NDArray[np.float32] = logits[:, -1].numpy()
            return result

        return scorer

    def found(self, molecule: str, beams: int, length: int) -> list[tuple[str, float]]:
        """Our beam search over its decoder, as it states results."""
        hypotheses = beam_search(self.scorer(molecule), 2, 3, beams, length)
        assert all(h.finished for h in hypotheses)
        return [(self.tokenizer.decode(h.tokens), h.score) for h in hypotheses]


@pytest.fixture(scope="module")
def annalog() -> Iterator[Annalog]:
    reference = Annalog()
    threads = reference.torch.get_num_threads()
    reference.torch.set_num_threads(1)  # on matrices this small, threads only wait
    yield reference
    reference.torch.set_num_threads(threads)


ASPIRIN = "CC(=O)Oc1ccccc1C(=O)O"
CAFFEINE = "Cn1cnc2c1c(=O)n(C)c(=O)n2C"
IBUPROFEN = "CC(C)Cc1ccc(cc1)[C@@H](C)C(=O)O"


# When a hypothesis ends, annalog 1.0.6 drops it from its beam, and then drops the scores of
# the beam by looking through what is left: from there on, hypotheses have the scores of
# others, and its own likelihood of them disagrees. Scores must be dropped first.
def mended(decoding: Any) -> Callable[..., Any]:
    """annalog's beam search with those two lines in the right order."""
    lines = inspect.getsource(decoding.beam_search_decode).splitlines()
    tokens, scores = (i for i, line in enumerate(lines) if "not in finished_seq" in line)
    lines[tokens], lines[scores] = lines[scores], lines[tokens]
    names = dict(vars(decoding))
    exec("\n".join(lines), names)
    search: Callable[..., Any] = names["beam_search_decode"]
    return search


@pytest.mark.parametrize("molecule", [ASPIRIN, CAFFEINE, IBUPROFEN])
@pytest.mark.parametrize("beams", [1, 5])
def test_beam_search_equals_annalogs(
    annalog: Annalog, monkeypatch: pytest.MonkeyPatch, molecule: str, beams: int
) -> None:
    found = annalog.found(molecule, beams, 102)
    monkeypatch.setattr(annalog.decoding, "beam_search_decode", mended(annalog.decoding))
    expected = annalog.search(molecule, beams, 102)
    assert len(expected) == beams
    assert [analogue for analogue, _ in found] == [analogue for analogue, _ in expected]
    assert [s for _, s in found] == pytest.approx([s for _, s in expected], abs=1e-4)
    likelihoods = [annalog.log_probability(molecule, analogue) for analogue, _ in found]
    assert [s for _, s in found] == pytest.approx(likelihoods, abs=1e-4)


def test_aspirin_gives_the_same_analogues_as_annalog_unmended(annalog: Annalog) -> None:
    found = [analogue for analogue, _ in annalog.found(ASPIRIN, 5, 102)]
    assert found == [analogue for analogue, _ in annalog.search(ASPIRIN, 5, 102)]
    assert found == [
        "CC(=O)Oc1ccccc1C(=O)O",
        "CC(=O)Oc1cccc(C(=O)O)c1",
        "CC(=O)Oc1ccc(C(=O)O)cc1",
        "CC(=O)Oc1ccccc1C(=O)OC",
        "CC(=O)Oc1ccccc1C(=O)OCC",
    ]


def test_where_nothing_ends_annalog_gives_nothing_and_we_say_so(annalog: Annalog) -> None:
    assert annalog.search(ASPIRIN, 5, 10) == []
    found = beam_search(annalog.scorer(ASPIRIN), 2, 3, 5, 10)
    assert len(found) == 5
    assert not any(h.finished for h in found)
