"""Translating with real weights, and with a model whose answer is known."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

import archdsl
from archdsl.cli import main
from archdsl.formats import resolve
from archdsl.runtime.tokenizers import VocabularyTokenizer, read_vocabulary
from archdsl.runtime.translate import translate

ASPIRIN = "CC(=O)Oc1ccccc1C(=O)O"
FOLDER = "package:annalog/ckpt_and_vocab"
VOCABULARY = f"{FOLDER}/stereo_experiment_vocab_ttf.pkl"

# The package's own torch code gives these at beam 5, each score the sum of log-probabilities
# (the scores it prints from the second on are another hypothesis', see test_search.py).
ANALOGUES = {
    "CC(=O)Oc1ccccc1C(=O)O": -3.5462,
    "CC(=O)Oc1cccc(C(=O)O)c1": -3.9281,
    "CC(=O)Oc1ccc(C(=O)O)cc1": -4.6233,
    "CC(=O)Oc1ccccc1C(=O)OC": -4.8317,
    "CC(=O)Oc1ccccc1C(=O)OCC": -5.1386,
}


def annalog() -> archdsl.runtime.model.Model:  # type: ignore[name-defined]
    # The package itself does not import without others; only its files are needed.
    if importlib.util.find_spec("annalog") is None:
        pytest.skip("annalog is not installed; CONTRIBUTING.md says how")
    model = archdsl.compile("annalog.arch", device="CPU")
    model.load(f"{FOLDER}/Lev_extended.pt")
    return model


@pytest.mark.reference
def test_aspirin_gives_itself_and_its_isomers() -> None:
    model = annalog()
    tokenizer = read_vocabulary(resolve(VOCABULARY))
    found = translate(model, tokenizer, ASPIRIN, beams=5)
    assert [tokenizer.decode(h.tokens) for h in found] == list(ANALOGUES)
    assert [h.score for h in found] == pytest.approx(list(ANALOGUES.values()), abs=1e-4)
    (best,) = translate(model, tokenizer, ASPIRIN)
    assert tokenizer.decode(best.tokens) == ASPIRIN


@pytest.mark.reference
def test_a_batch_of_molecules_gives_what_each_gives_alone() -> None:
    model = annalog()
    tokenizer = read_vocabulary(resolve(VOCABULARY))
    texts = [ASPIRIN, "c1ccccc1", "CN1C=NC2=C1C(=O)N(C(=O)N2C)C"]
    ids = [tokenizer.encode(text, bos=True, eos=True) for text in texts]
    padded = np.full((len(ids), max(map(len, ids))), 1)
    for row, each in zip(padded, ids, strict=True):
        row[: len(each)] = each
    together = model(source=padded, target=padded)["logits"].numpy()
    for row, each in zip(together, ids, strict=True):
        alone = model(source=[each], target=[each])["logits"].numpy()[0]
        assert np.abs(row[: len(each)] - alone).max() <= 1e-5 * np.abs(alone).max()


@pytest.mark.reference
def test_saved_under_our_names_it_loads_again(tmp_path: object) -> None:
    model = annalog()
    path = f"{tmp_path}/annalog.safetensors"
    model.save(path)
    again = archdsl.compile("annalog.arch", device="CPU", seed=7)
    again.load(path)
    for name, weight in model.parameters.items():
        np.testing.assert_array_equal(again.parameters[name].numpy(), weight.numpy())


@pytest.mark.reference
def test_the_command_prints_the_analogues(capsys: pytest.CaptureFixture[str]) -> None:
    annalog()
    weights = ["--weights", f"{FOLDER}/Lev_extended.pt", "--vocab", VOCABULARY]
    args = ["translate", "annalog.arch", ASPIRIN, *weights, "--beams", "5", "--best", "3"]
    assert main([*args, "--device", "CPU"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [text for text, _ in lines] == list(ANALOGUES)[:3]
    assert [float(score) for _, score in lines] == pytest.approx(
        list(ANALOGUES.values())[:3], abs=1e-4
    )


def test_padding_is_never_the_next_token(tmp_path: Path) -> None:
    tokenizer = VocabularyTokenizer(["<pad>", "<bos>", "<eos>", "a", "b"])
    model = archdsl.compile(
        "transformer.arch", vocab=5, context=8, D=8, heads=2, depth=1, device="CPU"
    )
    (head,) = (name for name, p in model.weights.items() if p.weight.shape == (5,))
    weights = {name: tensor.numpy() for name, tensor in model.parameters.items()}
    np.savez(tmp_path / "likes_padding.npz", **weights | {head: np.float32([9, 0, 0, 1, 0])})
    model.load(tmp_path / "likes_padding.npz")
    (best,) = translate(model, tokenizer, "ab", max_length=5)
    assert tokenizer.decode(best.tokens) == "aaaa"
