"""Translation with models whose answer is known, and errors."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import archdsl
from archdsl.diagnostics import ArchError
from archdsl.generation.beam_search import Search
from archdsl.model import Model
from archdsl.progress import listening
from archdsl.tasks.translate import translate

PAD, BOS, EOS, A, B = range(5)


def likes(tmp_path: Path, **bias: float) -> Model:
    """A model of five tokens that always returns these logits."""
    sizes: dict[str, Any] = {"vocab": 5, "context": 8, "D": 8, "heads": 2, "depth": 1}
    model = archdsl.compile("transformer.arch", **sizes, device="CPU")
    (head,) = (name for name, p in model.weights.items() if p.weight.shape == (5,))
    weights = {name: tensor.numpy() for name, tensor in model.parameters.items()}
    np.savez(tmp_path / "likes.npz", **weights | {head: np.float32([*bias.values()])})
    model.load(tmp_path / "likes.npz")
    return model


def test_padding_is_never_generated_and_batches_are_filled(tmp_path: Path) -> None:
    model = likes(tmp_path, pad=9, bos=0, eos=0, a=1, b=0)
    search = Search(BOS, (EOS,), 5)
    sources = [[BOS, A, B, EOS], [BOS, B, EOS], [BOS, A, EOS]]
    found = list(translate(model, sources, search, together=2))
    assert [[h.tokens for h in each] for each in found] == [[(BOS, A, A, A, A)]] * 3
    assert list(translate(model, [], search)) == []
    tasks: list[str] = []
    with listening(lambda task: nullcontext(tasks.append(f"{task.what}: {task.total}"))):
        list(translate(model, sources, search, together=2))
    assert "translating: 2" in tasks


@pytest.mark.parametrize(
    ("sources", "changes", "together", "message", "expected"),
    [
        ([[A] * 9], {}, 8, "the source is too long for", "at most 8 tokens"),
        ([[A], [A] * 9], {}, 8, "source 2 is too long for", "at most 8 tokens"),
        ([[]], {}, 8, "the source has no tokens", "1 token or more"),
        ([[A]], {"max_length": 9}, 8, "max_length is larger than the context", "at most 8"),
        ([[A]], {"start": 5}, 8, "the start token is not in the vocabulary", "0 to 4"),
        ([[A]], {}, 0, "the number of sources per batch", "1 or more"),
    ],
)
def test_errors_are_reported_before_any_computation(
    sources: list[list[int]], changes: Any, together: int, message: str, expected: str
) -> None:
    sizes: dict[str, Any] = {"vocab": 5, "context": 8, "D": 8, "heads": 2, "depth": 1}
    model = archdsl.compile("transformer.arch", **sizes, device="CPU")
    with pytest.raises(ArchError) as caught:
        translate(model, sources, replace(Search(BOS, (EOS,), 8), **changes), together)
    (diagnostic,) = caught.value.diagnostics
    assert message in diagnostic.message
    assert (diagnostic.expected or "").startswith(expected)
