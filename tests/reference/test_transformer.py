"""The encoder-decoders compute what `torch.nn.Transformer` computes, on padded batches.

`torch.nn.Transformer` has a norm behind each of its stacks, which the published model has
not: that one is compared with PyTorch's stacks without it, and PyTorch's whole module with a
spec that has the two norms. Figure 5.7's decoder, with an MLP after each attention, is put
together from PyTorch's smaller modules. Positions of the target that are padding mean
nothing, and are left out.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import archdsl
from tests.reference import our_names, torch_models
from tests.reference.agreement import TOLERANCE, apart
from tests.reference.torch_models import settled, torch

pytestmark = pytest.mark.reference("torch")

# `order` and `act` are put in: pre_norm with gelu, or post_norm with relu.
WHOLE = """
use "blocks.arch"

block encoder_layer(x: float[S, D], heads, hidden): float[S, D] {{
  x -> self: {order}(attention(heads)) -> ff: {order}(mlp(hidden, D, {act}))
}}

block decoder_layer(x: float[T, D], memory: float[S, D], heads, hidden): float[T, D] {{
  x
    -> self: {order}(attention(heads, causal))
    -> cross: {order}(attention(heads, over = memory))
    -> ff: {order}(mlp(hidden, D, {act}))
}}

model Transformer(vocab = 50, context = 32, D = 60, heads = 5, hidden = 84, depth = 2) {{
  input source: int[S <= context] < vocab pad 0
  input target: int[T <= context] < vocab pad 0

  z = source
    -> source_tokens: embed(vocab, D)
    -> posenc(sinusoidal)
    -> encoder: encoder_layer(heads, hidden) * depth
    -> encoder_norm: norm

  h = target
    -> target_tokens: embed(vocab, D)
    -> posenc(sinusoidal)
    -> decoder: decoder_layer(z, heads, hidden) * depth
    -> decoder_norm: norm

  output logits: float[T, vocab] = h -> head: linear(vocab)
}}
"""

# Real tokens of each row, of the source and of the target.
Lengths = tuple[list[int], list[int]]
PADDED: Lengths = [13, 4, 1], [7, 9, 2]
ALONE: Lengths = [11], [5]
ONE_EACH: Lengths = [2, 17, 17, 8], [1, 1, 1, 1]


def padded(random: np.random.Generator, lengths: list[int], vocab: int) -> NDArray[np.int64]:
    """[B, T] tokens from 1 on, filled up with 0."""
    tokens = random.integers(1, vocab, (len(lengths), max(lengths)))
    return np.where(np.arange(max(lengths)) < np.array(lengths)[:, None], tokens, 0)


def check(
    ours: Any,
    theirs: Any,
    weights: Callable[[Any], dict[str, Any]],
    vocab: int,
    lengths: Lengths,
    folder: Path,
) -> None:
    settled(theirs, seed=sum(lengths[0]))
    tensors = {name: torch.from_numpy(w) for name, w in weights(theirs).items()}
    torch.save(tensors, folder / "weights.pt")
    ours.load(folder / "weights.pt")
    random = np.random.default_rng(sum(lengths[1]))
    source, target = (padded(random, each, vocab) for each in lengths)
    with torch.no_grad():
        expected = theirs(torch.from_numpy(source), torch.from_numpy(target)).numpy()
    found = ours(source=source, target=target)["logits"].numpy()
    assert apart(found[target > 0], expected[target > 0]) <= TOLERANCE


@pytest.mark.parametrize(
    ("D", "heads", "depth", "lengths"),
    [(60, 5, 3, PADDED), (28, 7, 1, ALONE), (96, 3, 2, ONE_EACH)],
)
def test_figure_5_7(tmp_path: Path, D: int, heads: int, depth: int, lengths: Lengths) -> None:
    sizes = {"vocab": 53, "D": D, "heads": heads, "depth": depth}
    ours = archdsl.compile("transformer.arch", context=23, device="CPU", **sizes)
    theirs = torch_models.figure_translator(**sizes)
    check(ours, theirs, our_names.figure_weights, 53, lengths, tmp_path)


@pytest.mark.parametrize(
    ("D", "heads", "depth", "lengths"),
    [(60, 3, 3, PADDED), (36, 9, 1, ALONE), (20, 5, 2, ONE_EACH)],
)
def test_as_published(tmp_path: Path, D: int, heads: int, depth: int, lengths: Lengths) -> None:
    sizes = {"vocab": 47, "D": D, "heads": heads, "depth": depth, "hidden": 100}
    ours = archdsl.compile("vaswani2017.arch", context=21, device="CPU", **sizes)
    theirs = torch_models.published_translator(**sizes)
    check(ours, theirs, our_names.published_weights, 47, lengths, tmp_path)


@pytest.mark.parametrize(
    ("order", "act", "lengths"),
    [
        ("pre_norm", "gelu", PADDED),
        ("pre_norm", "gelu", ONE_EACH),
        ("post_norm", "relu", PADDED),
        ("post_norm", "relu", ALONE),
    ],
)
def test_torch_nn_transformer_as_it_comes(
    tmp_path: Path, order: str, act: str, lengths: Lengths
) -> None:
    ours = archdsl.compile(archdsl.parse(WHOLE.format(order=order, act=act)), device="CPU")
    theirs = torch_models.whole_translator(50, 60, 5, 84, 2, norm_first=order == "pre_norm")
    check(ours, theirs, our_names.whole_weights, 50, lengths, tmp_path)
