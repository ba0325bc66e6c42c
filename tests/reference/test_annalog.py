"""annalog's trained encoder-decoder, run by its own torch code and by ours.

Its beam search is the reference: hypotheses are the same, and scores within 1e-4 in float32,
by our search over its model, and over ours with and without what is kept from step to step.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import archdsl
from archdsl.cli import main
from archdsl.generation.beam_search import Scorer, Search, beam_search
from archdsl.model import Model
from archdsl.tasks.translate import cached_scorer, find_roles, translate
from archdsl.text.vocabulary_tokenizer import read_vocabulary
from benchmarks.translate_cache import FOLDER, MOLECULES, uncached

pytestmark = pytest.mark.reference("torch")

VOCABULARY = f"{FOLDER}/stereo_experiment_vocab_ttf.pkl"


class Annalog:
    """The trained encoder-decoder of PyPI's annalog, and its own search."""

    def __init__(self) -> None:
        import torch

        self.torch: Any = torch
        spec = importlib.util.find_spec("annalog")
        if spec is None or spec.origin is None:
            pytest.skip("annalog is not installed; CONTRIBUTING.md says how")
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

        def scorer(prefixes: NDArray[np.int64], _: object) -> NDArray[np.float32]:
            targets = torch.from_numpy(prefixes)
            causal = model.make_trg_mask(targets)
            memories = memory.expand(len(prefixes), -1, -1)
            with torch.no_grad():
                logits, _ = model.decoder(targets, memories, causal, mask)
            result: NDArray[np.float32] = logits[:, -1].numpy()
            return result

        return scorer

    def told(self, scorer: Scorer, asked: Search) -> list[tuple[str, float]]:
        """What our search finds, as annalog states results."""
        (hypotheses,) = beam_search(scorer, asked)
        assert all(h.finished for h in hypotheses)
        return [(self.tokenizer.decode(h.tokens), h.score) for h in hypotheses]


def search(beams: int, length: int = 102) -> Search:
    return Search(start=2, ends=(3,), max_length=length, beams=beams)


@pytest.fixture(scope="module")
def annalog() -> Iterator[Annalog]:
    reference = Annalog()
    threads = reference.torch.get_num_threads()
    reference.torch.set_num_threads(1)  # on matrices this small, threads only wait
    yield reference
    reference.torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def ours(annalog: Annalog) -> Model:
    model = archdsl.compile("annalog.arch", device="CPU")
    model.load(f"{FOLDER}/Lev_extended.pt")
    return model


ASPIRIN = MOLECULES[0]
# At beam 5, each score the sum of log-probabilities (those that annalog prints from the second
# on are another hypothesis', as said below).
ANALOGUES = {
    "CC(=O)Oc1ccccc1C(=O)O": -3.5462,
    "CC(=O)Oc1cccc(C(=O)O)c1": -3.9281,
    "CC(=O)Oc1ccc(C(=O)O)cc1": -4.6233,
    "CC(=O)Oc1ccccc1C(=O)OC": -4.8317,
    "CC(=O)Oc1ccccc1C(=O)OCC": -5.1386,
}


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


def agree(ours: list[tuple[str, float]], theirs: list[tuple[str, float]]) -> None:
    assert [molecule for molecule, _ in ours] == [molecule for molecule, _ in theirs]
    assert [s for _, s in ours] == pytest.approx([s for _, s in theirs], abs=1e-4)


@pytest.mark.parametrize("molecule", MOLECULES)
@pytest.mark.parametrize("beams", [1, 5])
def test_beam_search_equals_annalogs(
    annalog: Annalog, ours: Model, monkeypatch: pytest.MonkeyPatch, molecule: str, beams: int
) -> None:
    monkeypatch.setattr(annalog.decoding, "beam_search_decode", mended(annalog.decoding))
    theirs = annalog.search(molecule, beams, 102)
    assert len(theirs) == beams
    asked = search(beams)
    agree(annalog.told(annalog.scorer(molecule), asked), theirs)
    source = annalog.tokenizer.encode(molecule, bos=True, eos=True)
    # Without the cache every length is a program of its own: one molecule is enough.
    for way in (
        (cached_scorer, uncached) if (molecule, beams) == (ASPIRIN, 5) else (cached_scorer,)
    ):
        scorer = way(ours, find_roles(ours.graph), [source], asked)
        agree(annalog.told(scorer, asked), theirs)
    likelihoods = [annalog.log_probability(molecule, analogue) for analogue, _ in theirs]
    assert [s for _, s in theirs] == pytest.approx(likelihoods, abs=1e-4)


def test_aspirin_gives_the_same_analogues_as_annalog_unmended(annalog: Annalog) -> None:
    found = annalog.told(annalog.scorer(ASPIRIN), search(5))
    assert [m for m, _ in found] == [m for m, _ in annalog.search(ASPIRIN, 5, 102)]
    agree(found, list(ANALOGUES.items()))


def test_where_nothing_ends_annalog_gives_nothing_and_we_say_so(annalog: Annalog) -> None:
    assert annalog.search(ASPIRIN, 5, 10) == []
    (found,) = beam_search(annalog.scorer(ASPIRIN), search(5, 10))
    assert len(found) == 5
    assert not any(h.finished for h in found)


def test_molecules_in_one_batch_give_what_each_gives_alone(
    annalog: Annalog, ours: Model
) -> None:
    sources = [annalog.tokenizer.encode(m, bos=True, eos=True) for m in MOLECULES]
    together = list(translate(ours, sources, search(5)))
    for source, found in zip(sources, together, strict=True):
        (alone,) = translate(ours, [source], search(5))
        assert [h.tokens for h in found] == [h.tokens for h in alone]
        scores = [h.score for h in alone]
        assert [h.score for h in found] == pytest.approx(scores, abs=1e-4)
    padded = np.full((len(sources), max(map(len, sources))), 1)
    for row, ids in zip(padded, sources, strict=True):
        row[: len(ids)] = ids
    logits = ours(source=padded, target=padded)["logits"].numpy()
    for row, ids in zip(logits, sources, strict=True):
        alone = ours(source=[ids], target=[ids])["logits"].numpy()[0]
        assert np.abs(row[: len(ids)] - alone).max() <= 1e-5 * np.abs(alone).max()


def test_saved_under_our_names_it_loads_again(ours: Model, tmp_path: Path) -> None:
    path = tmp_path / "annalog.safetensors"
    ours.save(path)
    again = archdsl.compile("annalog.arch", device="CPU", seed=7)
    again.load(path)
    for name, weight in ours.parameters.items():
        np.testing.assert_array_equal(again.parameters[name].numpy(), weight.numpy())


def test_the_command_prints_the_analogues(
    annalog: Annalog, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = ["--weights", f"{FOLDER}/Lev_extended.pt", "--vocab", VOCABULARY]
    args = ["translate", "annalog.arch", ASPIRIN, *weights, "--beams", "5", "--best", "3"]
    assert main([*args, "--device", "CPU"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    agree([(text, float(score)) for text, score in lines], list(ANALOGUES.items())[:3])
