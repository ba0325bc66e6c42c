"""Optimizers against PyTorch's, and Muon and LAMB against their papers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tinygrad import Tensor

from archdsl.backend.optimizers import OPTIMIZERS, Optimizer, Rule
from archdsl.diagnostics import ArchError

Array = NDArray[Any]
Weights = dict[str, Array]

SIZES = {"layer.0.wide": (5, 3), "layer.0.tall": (2, 6), "layer.0.bias": (5,), "head": (4, 3)}
IN_LAYERS = frozenset(name for name in SIZES if name.startswith("layer"))
STEPS, RATE = 4, 0.05
RULE = Rule(weight_decay=0.3, beta1=0.8, beta2=0.9, epsilon=1e-6, momentum=0.7)


def drawn(seed: int) -> Weights:
    random = np.random.default_rng(seed)
    return {
        name: random.standard_normal(size).astype(np.float32) for name, size in SIZES.items()
    }


def gradients(step: int) -> Weights:
    return {name: each * 10.0**step for name, each in drawn(100 + step).items()}


def ours(rule: Rule) -> list[Weights]:
    """The weights after each step."""
    weights = {name: Tensor(each, device="CPU").realize() for name, each in drawn(0).items()}
    optimizer = Optimizer(rule, weights, IN_LAYERS)
    rate = Tensor([RATE], device="CPU").realize()
    found = []
    for step in range(STEPS):
        given = {name: Tensor(each, device="CPU") for name, each in gradients(step).items()}
        Tensor.realize(*optimizer.update(given, rate))
        found.append({name: each.numpy() for name, each in weights.items()})
    return found


def agree(found: list[Weights], right: list[Weights]) -> None:
    for one, other in zip(found, right, strict=True):
        for name in SIZES:
            largest = max(1, np.abs(other[name]).max())
            assert np.abs(one[name] - other[name]).max() <= 2e-6 * largest, name


@pytest.mark.reference("torch")
@pytest.mark.parametrize("name", ["adamw", pytest.param("sgd", marks=pytest.mark.long)])
def test_the_weights_are_those_of_pytorch(name: str) -> None:
    import torch

    theirs = {n: torch.nn.Parameter(torch.from_numpy(each)) for n, each in drawn(0).items()}
    matrices = [each for each in theirs.values() if each.ndim > 1]
    vectors = [each for each in theirs.values() if each.ndim == 1]
    groups = [
        {"params": matrices, "weight_decay": RULE.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    optimizer: torch.optim.Optimizer
    if name == "adamw":
        betas = (RULE.beta1, RULE.beta2)
        optimizer = torch.optim.AdamW(groups, lr=RATE, betas=betas, eps=RULE.epsilon)
    else:
        optimizer = torch.optim.SGD(groups, lr=RATE, momentum=RULE.momentum)
    right = []
    for step in range(STEPS):
        for path, gradient in gradients(step).items():
            theirs[path].grad = torch.from_numpy(gradient)
        optimizer.step()
        right.append({n: each.detach().numpy().copy() for n, each in theirs.items()})
    agree(ours(replace(RULE, name=name)), right)


def adam(m: Array, v: Array, g: Array, t: int) -> tuple[Array, Array, Array]:
    """The direction of Adam, and its two averages, at step t."""
    m, v = RULE.beta1 * m + (1 - RULE.beta1) * g, RULE.beta2 * v + (1 - RULE.beta2) * g * g
    m_hat, v_hat = m / (1 - RULE.beta1**t), v / (1 - RULE.beta2**t)
    return m_hat / (np.sqrt(v_hat) + RULE.epsilon), m, v


def lamb(name: str) -> Callable[[Array, Array, int], Array]:
    """You et al. 2019, algorithm 2, where phi is the identity."""
    m = v = np.zeros(SIZES[name])

    def update(x: Array, g: Array, t: int) -> Array:
        nonlocal m, v
        r, m, v = adam(m, v, g, t)
        r = r + (RULE.weight_decay if x.ndim > 1 else 0) * x
        ratio = float(np.linalg.norm(x) / np.linalg.norm(r))
        return x - RATE * ratio * r

    return update


def adamw(name: str) -> Callable[[Array, Array, int], Array]:
    m = v = np.zeros(SIZES[name])

    def update(x: Array, g: Array, t: int) -> Array:
        nonlocal m, v
        r, m, v = adam(m, v, g, t)
        found: Array = x - RATE * (r + (RULE.weight_decay if x.ndim > 1 else 0) * x)
        return found

    return update


def muon(name: str) -> Callable[[Array, Array, int], Array]:
    """Jordan 2024, scaled as by Liu et al. 2025, equation 4."""
    if name not in IN_LAYERS or len(SIZES[name]) == 1:
        return adamw(name)
    momentum = np.zeros(SIZES[name])

    def update(x: Array, g: Array, t: int) -> Array:
        nonlocal momentum
        momentum = RULE.momentum * momentum + g
        o = orthogonal(g + RULE.momentum * momentum)  # of Nesterov
        factor = 0.2 * float(np.sqrt(max(x.shape)))
        found: Array = x - RATE * (factor * o + RULE.weight_decay * x)
        return found

    return update


def orthogonal(g: Array) -> Array:
    """Five iterations of Newton and Schulz with Jordan's numbers."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = g / (np.linalg.norm(g) + 1e-7)
    x = x.T if x.shape[0] > x.shape[1] else x
    for _ in range(5):
        s = x @ x.T
        x = a * x + (b * s + c * s @ s) @ x
    found: Array = x.T if g.shape[0] > g.shape[1] else x
    return found


@pytest.mark.long
@pytest.mark.parametrize("rule", [lamb, muon])
def test_the_weights_are_those_of_the_paper(
    rule: Callable[[str], Callable[[Array, Array, int], Array]],
) -> None:
    updates = {name: rule(name) for name in SIZES}
    weights: Mapping[str, Array] = {n: each.astype(np.float64) for n, each in drawn(0).items()}
    right = []
    for step in range(STEPS):
        given = gradients(step)
        weights = {n: updates[n](weights[n], given[n], step + 1) for n in SIZES}
        right.append(dict(weights))
    agree(ours(replace(RULE, name=rule.__name__)), right)


@pytest.mark.few(1)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_state_has_a_name_for_each_tensor(name: str) -> None:
    weights = {path: Tensor(each, device="CPU").realize() for path, each in drawn(0).items()}
    optimizer = Optimizer(Rule(name), weights, IN_LAYERS)
    state = optimizer.state()
    for path in SIZES:
        kinds = {each.split()[0] for each in state if each.endswith(f" {path}")}
        matrix = name == "muon" and path in IN_LAYERS and len(SIZES[path]) > 1
        assert kinds >= ({"momentum"} if name == "sgd" or matrix else {"mean", "square"})
    assert len({id(each) for each in state.values()}) == len(state)


def test_an_unknown_optimizer_is_refused() -> None:
    with pytest.raises(ArchError, match="the optimizer cannot be adamW") as caught:
        Rule("adamW")
    assert "adamw" in str(caught.value.diagnostics[0].help)
