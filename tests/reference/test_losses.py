"""The losses and their gradients beside PyTorch, in float32: within 1e-5."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import archdsl

pytestmark = pytest.mark.reference("torch")

random = np.random.default_rng(5)
TOKENS = random.integers(1, 7, (3, 6))
TOKENS[1, 4:] = 0  # padding
COUNTED = random.random((3, 6)) < 0.7
TARGET = random.standard_normal((3, 6, 7)).astype(np.float32)

SPEC = """
model M(vocab = 7, D = 5) {
  input tokens: int[T <= 9] < vocab pad 0
  h = tokens -> embed(vocab, D)
  output logits: float[T, vocab] = h -> linear(vocab)
  output image: float[vocab] = logits -> mean
  loss LOSS
}
"""
BIAS = "  weight bias: float = -0.5\n  loss"


LOSSES = [
    "next_token(logits, tokens) + 0.5 * z_loss(logits)",
    "next_token(logits, tokens, where = counted: bool[T], ahead = 2, smoothing = 0.2)",
    "cross_entropy(logits, tokens, where = counted: bool[T], smoothing = 0.1)",
    "binary_cross_entropy(logits, label: bool[T, vocab])",
    "squared_error(logits, target: float[T, vocab])",
    "contrastive(image, image * 2)",
    "contrastive(image, image * 2, sigmoid, bias = bias)",
    "penalty(logits)",
]


def _next(logits: Any, tokens: Any, ahead: int, smoothing: float, counted: Any) -> Any:
    import torch

    f = torch.nn.functional
    each = f.cross_entropy(
        logits[:, :-ahead].transpose(1, 2), tokens[:, ahead:], reduction="none",
        label_smoothing=smoothing,
    )  # fmt: skip
    return each[counted[:, ahead:]].mean()


def _expected(loss: str, logits: Any, image: Any, bias: Any) -> Any:
    import torch

    f = torch.nn.functional
    tokens, target = torch.from_numpy(TOKENS), torch.from_numpy(TARGET)
    real = tokens != 0
    counted = real & torch.from_numpy(COUNTED)
    label = target > 0
    match loss.partition("(")[0]:
        case "next_token" if "ahead" in loss:
            return _next(logits, tokens, 2, 0.2, counted)
        case "next_token":
            far = _next(logits, tokens, 1, 0.0, real)
            return far + 0.5 * logits[real].logsumexp(-1).square().mean()
        case "cross_entropy":
            return f.cross_entropy(logits[counted], tokens[counted], label_smoothing=0.1)
        case "binary_cross_entropy":
            return f.binary_cross_entropy_with_logits(logits[real], label[real].float())
        case "squared_error":
            return f.mse_loss(logits[real], target[real])
        case "contrastive" if "sigmoid" in loss:
            signs = 2 * torch.eye(3) - 1
            return -f.logsigmoid(signs * (image @ (2 * image).T + bias)).sum() / 3
        case "contrastive":
            scores, right = image @ (2 * image).T, torch.arange(3)
            return (f.cross_entropy(scores, right) + f.cross_entropy(scores.T, right)) / 2
        case _:
            return logits[real].mean()


@pytest.mark.parametrize("loss", LOSSES)
def test_losses_and_gradients(loss: str) -> None:
    import torch

    spec = SPEC.replace("  loss", BIAS) if "bias" in loss else SPEC
    model = archdsl.compile(archdsl.parse(spec.replace("LOSS", loss)), device="CPU", seed=2)
    labels = {"counted": COUNTED, "label": TARGET > 0, "target": TARGET}
    given = {each.name: labels[each.name] for each in model.graph.labels}
    ours = model.loss(tokens=TOKENS, **given)
    ours.backward()
    weights = {
        name: torch.from_numpy(weight.numpy()).requires_grad_()
        for name, weight in model.parameters.items()
    }
    hidden = weights["embed.weight"][torch.from_numpy(TOKENS)]
    logits = hidden @ weights["linear.weight"].T + weights["linear.bias"]
    real = torch.from_numpy(TOKENS != 0)
    image = torch.stack([row[mask].mean(0) for row, mask in zip(logits, real, strict=True)])
    theirs = _expected(loss, logits, image, weights.get("bias"))
    theirs.backward()
    for name in weights:
        gradient: Any = model.parameters[name].grad
        found, right = gradient.numpy(), weights[name].grad.numpy()
        assert abs(found - right).max() <= 1e-5 * max(1.0, abs(right).max()), name
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-5, abs=1e-7)
