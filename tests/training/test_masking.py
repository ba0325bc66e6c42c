"""Masked tokens: shares as in Devlin et al. 2018, the same for the same numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from archdsl.analysis import analyse
from archdsl.diagnostics import ArchError
from archdsl.execution import inputs
from archdsl.graph.nodes import Graph
from archdsl.syntax.parser import parse
from archdsl.text.tokenizer import PlainTokenizer
from archdsl.text.vocabulary_tokenizer import VocabularyTokenizer
from archdsl.training.data import open_data
from archdsl.training.masking import find_mask, mask_tokens, masked_names

LOSS = "cross_entropy(logits, targets: int[T] < vocab, where = masked: bool[T])"
SPEC = f"""
model Masked(vocab = 60) {{
  input tokens: int[T <= 24] < vocab pad 0
  output logits: float[T, vocab] = tokens -> embed(vocab, 4) -> linear(vocab)
  loss {LOSS}
}}
"""
MASK, BELOW, SPECIAL = 4, 1000, (0, 1, 2, 3)
TEXT = "the quick brown fox jumps over the lazy dog\n" * 20


def graph_of(spec: str = SPEC) -> Graph:
    return analyse(parse(spec, "masked.arch"), None, {}).graph


def test_shares_of_masked_and_replaced_tokens() -> None:
    random = np.random.default_rng(0)
    tokens = random.integers(5, BELOW, (300, 200))
    tokens[:, 150:] = 0
    seeds = [(7, row) for row in range(300)]
    found = mask_tokens(tokens, seeds, mask=MASK, below=BELOW, special=SPECIAL)
    assert np.array_equal(found.targets, tokens)
    assert np.array_equal(found.tokens[~found.masked], tokens[~found.masked])
    assert (found.masked.sum(1) == round(0.15 * 150)).all()
    assert not found.masked[:, 150:].any()
    chosen = found.tokens[found.masked]
    same = (chosen == tokens[found.masked]).mean()
    hidden = (chosen == MASK).mean()
    # 6600 draws: the standard deviation of a share is 0.005 at most.
    assert hidden == pytest.approx(0.8, abs=0.02)
    assert same == pytest.approx(0.1, abs=0.02)
    others = chosen[(chosen != MASK) & (chosen != tokens[found.masked])]
    assert others.min() > MASK
    assert len(np.unique(others)) > 300


def test_the_numbers_decide_alone() -> None:
    tokens = np.random.default_rng(1).integers(5, BELOW, (3, 50))
    known = {"mask": MASK, "below": BELOW, "special": SPECIAL}
    whole = mask_tokens(tokens, [(1, 0), (1, 1), (1, 2)], **known)  # type: ignore[arg-type]
    last = mask_tokens(tokens[2:], [(1, 2)], **known)  # type: ignore[arg-type]
    other = mask_tokens(tokens[2:], [(2, 2)], **known)  # type: ignore[arg-type]
    assert np.array_equal(last.tokens[0], whole.tokens[2])
    assert np.array_equal(last.masked[0], whole.masked[2])
    assert not np.array_equal(other.masked, last.masked)


def test_a_row_has_one_masked_token_at_least() -> None:
    tokens = np.array([[5, 1, 2], [1, 2, 3]])
    found = mask_tokens(tokens, [(0,), (1,)], mask=MASK, below=BELOW, special=SPECIAL)
    assert found.masked.tolist() == [[True, False, False], [False, False, False]]


@pytest.mark.parametrize(
    ("below", "share", "message"),
    [(5, 0.15, "all tokens are special"), (BELOW, 1.5, "a share of the tokens is masked")],
)
def test_refused_numbers(below: int, share: float, message: str) -> None:
    with pytest.raises(ArchError, match=message):
        mask_tokens(
            np.zeros((1, 3), np.int64),
            [(0,)],
            mask=MASK,
            below=below,
            special=SPECIAL,
            share=share,
        )


def test_the_names_of_a_model() -> None:
    found = masked_names(graph_of())
    assert found
    assert (found.tokens.name, found.targets, found.masked) == ("tokens", "targets", "masked")
    classes = SPEC.replace(LOSS, "cross_entropy(logits, targets: int[T] < vocab)")
    assert masked_names(graph_of(classes)) is None
    balanced = SPEC.replace(LOSS, f"{LOSS} + 0.1 * z_loss(logits)")
    assert masked_names(graph_of(balanced))


def test_text_for_a_masked_model(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(TEXT)
    graph = graph_of()
    data, again, other = (
        open_data(tmp_path, graph, length=20, seed=seed) for seed in (3, 3, 4)
    )
    assert data.tokenizer
    assert data.valid
    numbers = np.array([5, 0, 5])
    batch = data.train.batch(numbers)
    inputs.check(graph, batch, labels=True)
    assert data.tokenizer.decode(batch["targets"][0]) == TEXT[5:25]
    assert np.array_equal(batch["tokens"][0], batch["tokens"][2])
    assert np.array_equal(batch["tokens"], again.train.batch(numbers)["tokens"])
    assert data.fingerprint == again.fingerprint != other.fingerprint
    assert (data.valid.batch(np.array([0, 1]))["masked"].sum(1) == 3).all()
    everything = data.train.batch(np.arange(len(data.train)))
    mask = data.tokenizer.number("<mask>")
    assert (everything["tokens"][everything["masked"]] == mask).mean() == pytest.approx(
        0.8, abs=0.05
    )


@pytest.mark.parametrize(
    ("names", "found"),
    [(["a", "[MASK]", "<pad>"], 1), (["<s>", "<mask>"], 1), (["mask"], None)],
)
def test_the_mask_token(names: list[str], found: int | None) -> None:
    tokenizer = PlainTokenizer(VocabularyTokenizer(names))
    if found is None:
        with pytest.raises(ArchError, match="has no mask tokens"):
            find_mask(tokenizer)
    else:
        assert find_mask(tokenizer) == found


@pytest.mark.reference("tokenizers")
def test_bytes_with_a_mask_token(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(TEXT)
    data = open_data(tmp_path, graph_of(SPEC.replace("60", "300")), 20, "bytes")
    assert data.tokenizer
    assert set(data.tokenizer.special().values()) == {"<mask>", "<pad>"}
    rows = data.train.batch(np.arange(100))
    hidden = rows["tokens"] == data.tokenizer.number("<mask>")
    assert hidden.any()
    assert not (hidden & ~rows["masked"]).any()
