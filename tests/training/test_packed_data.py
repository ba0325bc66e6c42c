"""Texts that are packed into windows."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import archdsl
from archdsl.analysis import analyse
from archdsl.diagnostics import ArchError
from archdsl.execution import inputs
from archdsl.graph.nodes import Graph
from archdsl.passes.pack import pack
from archdsl.syntax.parser import parse
from archdsl.training.data import open_data

SPEC = """\
model Next(vocab = 40, context = 16) {
  input tokens: int[T <= context] < vocab
  h = tokens -> embed(vocab, 4) -> posenc(learned, context)
  output logits: float[T, vocab] = h -> attention(1, causal) -> linear(vocab)
  loss next_token(logits, tokens)
}
"""
WORDS = ["cat", "horse", "ant", "bumblebee", "dog", "a"] * 20


def graph_of(spec: str = SPEC) -> Graph:
    return analyse(parse(spec, "next.arch"), None, {}).graph


def write(path: Path, words: list[str]) -> Path:
    path.write_text("".join(json.dumps({"text": word}) + "\n" for word in words))
    return path


@pytest.mark.parametrize("pad", ["", " pad 0"])
def test_windows_have_whole_texts(tmp_path: Path, pad: str) -> None:
    graph = graph_of(SPEC.replace("< vocab\n", f"< vocab{pad}\n"))
    data = open_data(write(tmp_path / "a.jsonl", WORDS), graph, pack=True)
    assert data.tokenizer
    assert data.valid
    packed, end = pack(graph).graph, data.tokenizer.eos[0]
    texts = []
    for part in (data.train, data.valid):
        batch = part.batch(np.arange(len(part)))
        inputs.check(packed, batch, labels=True)
        for tokens, segments, places, counted in zip(*batch.values(), strict=True):
            for number in range(segments.max() + 1):
                mine = segments == number
                assert places[mine].tolist() == list(range(mine.sum()))
                if counted[mine].any():
                    assert counted[mine].tolist() == [False, *[True] * (mine.sum() - 1)]
                    assert tokens[mine][-1] == end
                    texts.append(data.tokenizer.decode(tokens[mine]))
    assert sorted(texts) == sorted(WORDS)
    assert len(data.train) + len(data.valid) < len(WORDS) / 2
    assert data.describe()[0].endswith("120 texts in 40 windows of 16, 94% full")


def test_windows_may_be_shorter(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", WORDS)
    data = open_data(path, graph_of(), length=11, pack=True)
    assert data.train.batch(np.array([0]))["tokens"].shape == (1, 11)
    with pytest.raises(ArchError, match="text 4 is longer than a window"):
        open_data(path, graph_of(), length=8, pack=True)


def test_other_data_are_not_packed(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a long text " * 20)
    with pytest.raises(ArchError, match="there are no short texts to pack"):
        open_data(tmp_path / "a.txt", graph_of(), pack=True)
    with pytest.raises(ArchError, match="cannot train on packed texts"):
        open_data(
            tmp_path, graph_of(SPEC.replace("-> linear", "-> delay -> linear")), pack=True
        )


@pytest.mark.slow
def test_a_run_on_packed_texts(tmp_path: Path) -> None:
    model = archdsl.compile(parse(SPEC, "next.arch"), device="CPU")
    data = write(tmp_path / "a.jsonl", WORDS)
    settings = {"pack": True, "steps": 6, "batch": 2, "eval_every": 3, "warmup": 0}
    result = model.fit(tmp_path / "run", data=data, learning_rate=0.1, **settings)
    assert result.step == 6
    assert result.best_valid is not None
    assert result.best_valid < 3.5  # ln 40 is 3.7
