"""Makes the stored references: seeded small models of PyTorch, as one npz for each spec.

    python -m tests.reference.stored.make_references

from the project's folder, with the packages of the `reference` extra. A file holds, for the
spec of its name, `sizes/…` that the model's parameters are set to, `weights/…` under our
names, `inputs/…` by name, the right `logits`, `real`, which is true for each row of logits
that is not one of padding, and the `loss`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.reference import our_names, torch_models
from tests.reference.torch_models import settled, torch

HERE = Path(__file__).parent
SEED = 2017


def save(
    name: str,
    sizes: dict[str, int],
    model: Any,
    weights: Callable[[Any], dict[str, Any]],
    inputs: dict[str, Any],
    label: str,
) -> None:
    """One file; `label` is the input that the logits are to predict, from its second token
    on where it is a sequence."""
    settled(model, SEED)
    given = {key: torch.from_numpy(value) for key, value in inputs.items()}
    right = given.pop(label) if label == "label" else given[label]
    with torch.no_grad():
        logits = model(*given.values())
    if right.ndim == 1:
        real = torch.ones_like(right, dtype=torch.bool)
        loss = torch.nn.functional.cross_entropy(logits, right)
    else:
        real = (right != 0) | (label == "tokens")
        counted = real[:, 1:]
        loss = torch.nn.functional.cross_entropy(logits[:, :-1][counted], right[:, 1:][counted])
    arrays = {f"sizes/{key}": np.array(value) for key, value in sizes.items()}
    arrays |= {f"weights/{key}": value for key, value in weights(model).items()}
    arrays |= {f"inputs/{key}": value for key, value in inputs.items()}
    path = HERE / f"{name}.npz"
    np.savez(path, logits=logits, real=real, loss=loss, **arrays)
    print(f"{path.name}: {path.stat().st_size:_} bytes, loss {loss:.6f}")


def padded(random: np.random.Generator, vocab: int, lengths: list[int]) -> Any:
    """[B, T] tokens from 1 on, filled up with 0."""
    tokens = random.integers(1, vocab, (len(lengths), max(lengths)), np.int32)
    return np.where(np.arange(max(lengths)) < np.array(lengths)[:, None], tokens, 0)


def main() -> None:
    random = np.random.default_rng(SEED)
    sizes = {"vocab": 61, "context": 13, "D": 20, "heads": 5, "depth": 2}
    tokens = random.integers(0, 61, (3, 11))
    gpt = torch_models.GPT(**sizes)
    save("gpt", sizes, gpt, our_names.gpt_weights, {"tokens": tokens}, "tokens")

    sizes = {"vocab": 41, "D": 18, "heads": 3, "depth": 1}
    pair = {"source": padded(random, 41, [9, 3, 1]), "target": padded(random, 41, [2, 7, 4])}
    pair = {name: tokens.astype(np.int64) for name, tokens in pair.items()}
    figure = torch_models.figure_translator(**sizes)
    bounded = sizes | {"context": 10}
    save("transformer", bounded, figure, our_names.figure_weights, pair, "target")

    sizes = {"image": 12, "patch": 4, "classes": 7, "D": 20, "heads": 5, "depth": 2}
    image = {"pixels": random.standard_normal((2, 3, 12, 12), np.float32)}
    image |= {"label": random.integers(0, 7, 2)}
    save("vit", sizes, torch_models.ViT(**sizes), our_names.vit_weights, image, "label")


if __name__ == "__main__":
    main()
