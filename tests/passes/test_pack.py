"""Packed texts: the numbers of a text in a window are those that it has alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from archdsl.analysis import analyse
from archdsl.diagnostics import ArchError
from archdsl.execution import inputs
from archdsl.graph.nodes import Graph
from archdsl.graph.verify import verify
from archdsl.model import Model
from archdsl.passes import optimise
from archdsl.passes.pack import pack
from archdsl.syntax.parser import parse
from archdsl.training.loop import train_step
from archdsl.training.settings import Settings
from tests.specs import causal_models

SPEC = """\
block layer(x: float[T, D], heads): float[T, D] {
  y = x + (x -> norm -> attention(heads, mask = causal & within(6)))
  y + (y -> norm -> mlp(2 * D, D))
}

model Tiny(vocab = 20, context = 12, D = 16, heads = 2) {
  input tokens: int[T <= context] < vocab
  h = tokens
    -> embed(vocab, D)
    -> posenc(learned, context)
    -> layer(heads) * 2
  output logits: float[T, vocab] = h -> linear(vocab)
  loss next_token(logits, tokens)
}
"""
LENGTHS = (5, 1, 4, 2)

# Small sizes of models whose positions, masks or sums differ.
KINDS: dict[str, dict[str, Any]] = {
    "llama.arch": {"D": 16, "heads": 2, "kv_heads": 1, "depth": 2, "hidden": 16},
    "bloom.arch:Bloom": {"D": 16, "heads": 2, "depth": 2},
    "transformer_xl.arch": {"D": 16, "heads": 2, "depth": 2},
}


def graph_of(spec: str = SPEC, **settings: int) -> Graph:
    return analyse(parse(spec, "tiny.arch"), None, settings).graph


def model_of(graph: Graph) -> Model:
    return Model(graph, (), "CPU", "float32", 0)


def assert_equal_alone(graph: Graph) -> None:
    """Compares logits and losses of a window of texts with those of each alone."""
    packed = pack(graph)
    whole = verify(replace(packed.graph, outputs=graph.outputs))
    lengths, rng = np.array(LENGTHS), np.random.default_rng(0)
    window = rng.integers(1, 20, (1, lengths.sum()))
    texts = np.split(window, lengths.cumsum()[:-1], axis=1)
    places = np.concatenate([np.arange(n) for n in lengths])[None]
    given = {
        packed.tokens.name: window,
        packed.segments: np.repeat(np.arange(len(lengths)), lengths)[None],
        packed.places: places,
    }
    together, alone = model_of(whole), model_of(graph)
    for path, weight in together.parameters.items():
        weight.assign(alone.parameters[path]).realize()
    logits = together(**given)["logits"].numpy()
    loss = together.loss(**given, **{packed.counted: places > 0}).item()
    # Alone, each text is a row; what is behind it changes no logit.
    padded = np.zeros((len(texts), lengths.max()), int)
    for row, text in zip(padded, texts, strict=True):
        row[: text.shape[1]] = text[0]
    rows = alone(**{packed.tokens.name: padded})["logits"].numpy()
    expected = [row[:n] for row, n in zip(rows, lengths, strict=True)]
    np.testing.assert_allclose(logits[0], np.concatenate(expected), rtol=0, atol=1e-5)
    losses = [
        np.log(np.exp(each).sum()) - each[token]
        for row, text in zip(rows, texts, strict=True)
        for each, token in zip(row, text[0, 1:], strict=False)
    ]
    assert len(losses) == (places > 0).sum()
    assert loss == pytest.approx(np.mean(losses), abs=1e-5)


@pytest.mark.long
def test_a_window_gives_what_each_text_gives_alone() -> None:
    assert_equal_alone(graph_of())


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_other_positions_masks_and_sums(name: str) -> None:
    known = {each.partition(":")[0]: names for each, names in causal_models().items()}
    known |= causal_models()
    settings = KINDS[name] | {"vocab": 20, "context": 12}
    settings = {key: value for key, value in settings.items() if key in known[name]}
    assert_equal_alone(analyse(name, None, settings).graph)


@pytest.mark.slow
def test_gradients_are_those_of_each_text_alone() -> None:
    """The weights have the same gradients from a window as from a padded batch."""
    spec = SPEC.replace("(logits, tokens)", "(logits, tokens, where = answers: bool[T])")
    graph, lengths = graph_of(spec), np.array(LENGTHS)
    window = np.random.default_rng(0).integers(1, 20, (1, lengths.sum()))
    places = np.concatenate([np.arange(n) for n in lengths])[None]
    segments = np.repeat(np.arange(len(lengths)), lengths)[None]
    together = {"tokens": window, "segments": segments, "places": places}
    rows = np.zeros((2, len(lengths), lengths.max()), int)
    for number, n in enumerate(lengths):
        rows[0, number, :n] = window[segments == number]
        rows[1, number, 1:n] = 1
    alone = {"tokens": rows[0], "answers": rows[1] > 0}
    gradients = []
    for given, packed in ((alone, False), (together | {"answers": places > 0}, True)):
        settings = Settings(pack=packed)
        step = train_step(model_of(graph).executable, settings, frozenset())
        step([inputs.check(step.graph, given, labels=True)], 1e-3, (0, 0))
        gradients.append({path: each.numpy() for path, each in step.gradients.items()})
    assert gradients[0].keys() == gradients[1].keys()
    for path, gradient in gradients[0].items():
        np.testing.assert_allclose(gradients[1][path], gradient, rtol=0, atol=1e-6)
        assert gradient.any()


def test_what_a_packed_graph_gets() -> None:
    packed = pack(graph_of())
    optimise(verify(packed.graph))
    names = [each.name for each in (*packed.graph.inputs, *packed.graph.labels)]
    assert names == ["tokens", "segments", "places", "counted"]
    (term,) = packed.graph.losses
    assert dict(term.loss.inputs)["where"] == "counted"
    row = {"tokens": [[1, 2]], "segments": [[0, 1]], "places": [[0, 0]], "counted": [[0, 0]]}
    inputs.check(packed.graph, row | {"counted": np.zeros((1, 2), bool)}, labels=True)


def test_the_label_of_the_loss_is_used() -> None:
    spec = SPEC.replace("(logits, tokens)", "(logits, tokens, where = answers: bool[T])")
    packed = pack(graph_of(spec))
    assert packed.counted == "answers"
    assert [each.name for each in packed.graph.labels] == ["answers"]
    other = pack(graph_of(SPEC.replace("tokens", "segments")))
    assert other.segments == "segments_2"


STATE = """\
block sum_state(x: float[T, D]): float[T, D] {
  state s: float[D] along T = s * 0.5 + x
  s
}
"""


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("next_token(logits, tokens)", "cross_entropy(logits, tokens)", "is not `next_token`"),
        ("(logits, tokens)", "(logits, tokens) + z_loss(logits)", "is not `next_token` alone"),
        ("(logits, tokens)", "(logits, tokens, ahead = 2)", "another token than the next"),
        ("within(6)", "chunk(4)", "`chunk(4)`, which counts from the window's start"),
        (
            "within(6)",
            "causal | prefix(1)",
            "`prefix(1)`, which counts from the window's start",
        ),
        (
            "-> linear",
            "-> conv1d(D, 3, causal) -> linear",
            "`conv1d` uses the positions before",
        ),
        ("-> linear", "-> delay(1) -> linear", "`delay` uses the positions before its own"),
        ("-> linear", "-> sum_state -> linear", "the state `s` goes from text to text"),
        ("h -> linear", "h + extra -> linear", "it has more inputs than tokens"),
    ],
)
def test_models_that_are_refused(old: str, new: str, message: str) -> None:
    spec = SPEC.replace(old, new)
    if "extra" in spec:
        spec = spec.replace("  h =", "  input extra: float[T, D]\n  h =")
    if "sum_state" in spec:
        spec = spec.replace("model", STATE + "\nmodel")
    with pytest.raises(ArchError) as caught:
        pack(graph_of(spec))
    assert message in str(caught.value)
    assert "cannot train on packed texts" in str(caught.value)


@pytest.mark.slow
def test_every_model_is_packed_or_refused() -> None:
    packed = set()
    for name in causal_models():
        graph = analyse(name).graph
        if not graph.losses:
            continue
        if reason := why_not(graph):
            assert "cannot train on packed texts" in reason
        else:
            packed.add(name.partition(":")[0])
    assert {"gpt2.arch", "llama.arch", "gemma.arch", "bloom.arch", "qwen_moe.arch"} <= packed


def why_not(graph: Graph) -> str | None:
    """Why a graph is not packed; None if it is."""
    try:
        optimise(verify(pack(graph).graph))
    except ArchError as error:
        return str(error)
    return None
