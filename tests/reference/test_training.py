"""The loss of a model and all its gradients are those that PyTorch computes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tinygrad import Tensor

import archdsl
from tests.reference import our_names
from tests.reference.agreement import TOLERANCE, apart
from tests.reference.torch_models import GPT, settled, torch

pytestmark = pytest.mark.reference("torch")


def test_the_gradients_of_a_gpt_agree(tmp_path: Path) -> None:
    sizes = {"vocab": 13, "context": 7, "D": 12, "heads": 3, "depth": 2}
    theirs = settled(GPT(**sizes), seed=0)
    ours = archdsl.compile("gpt.arch", device="CPU", **sizes)
    np.savez(tmp_path / "gpt.npz", **our_names.gpt_weights(theirs))
    ours.load(tmp_path / "gpt.npz")

    tokens = np.random.default_rng(0).integers(0, 13, (3, 6))
    given = torch.from_numpy(tokens)
    predicted = theirs(given)[:, :-1].flatten(0, 1)  # [B (T - 1), vocab]
    expected = torch.nn.functional.cross_entropy(predicted, given[:, 1:].flatten())
    expected.backward()
    for weight in theirs.parameters():
        weight.data = weight.grad
    loss = ours.loss(tokens=tokens)
    loss.backward()
    # All at once, or each would compute the whole backward pass for itself.
    Tensor.realize(loss, *(weight.grad for weight in ours.parameters.values()))
    assert apart(loss, expected.detach()) <= TOLERANCE
    gradients = our_names.gpt_weights(theirs)
    largest = max(np.abs(gradient).max() for gradient in gradients.values())
    for path, right in gradients.items():
        distance = np.abs(ours.parameters[path].grad.numpy() - right).max()
        # The keys' biases move all scores of a query alike: their gradients are rounding alone.
        assert distance <= TOLERANCE * np.abs(right).max() + 1e-7 * largest, path
