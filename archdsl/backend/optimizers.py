"""tinygrad's optimizers on weights by path, and their state by name.

Only matrices decay: biases, scales of norms and other vectors do not (Radford et al. 2018,
section 4.1).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from math import prod
from typing import Any

from tinygrad import Context, Tensor

from archdsl.backend.tensors import shape
from archdsl.backend.tinygrad_seam import one_thread, optim
from archdsl.diagnostics import did_you_mean, fail, listing
from archdsl.frozen import Frozen

OPTIMIZERS = ("adamw", "sgd", "muon", "lamb")


class Rule(Frozen):
    """An optimizer and its numbers.

    - `adamw`: Loshchilov and Hutter 2017, with `beta1`, `beta2` and `epsilon`.
    - `sgd`: with `momentum`.
    - `muon`: Jordan 2024, with `momentum`, for the matrices of layers. Its updates are scaled
      to the size of AdamW's, so that one learning rate serves both (Liu et al. 2025, section
      2.2). All other weights have AdamW.
    - `lamb`: You et al. 2019, with `beta1`, `beta2` and `epsilon`.

    `weight_decay` is multiplied by the learning rate.
    """

    name: str = "adamw"
    weight_decay: float = 0.1
    beta1: float = 0.9
    beta2: float = 0.95
    epsilon: float = 1e-8
    momentum: float = 0.95

    def __post_init__(self) -> None:
        if self.name not in OPTIMIZERS:
            fail(
                "argument-value",
                f"the optimizer cannot be {self.name!s:.80}",
                expected=listing(OPTIMIZERS),
                help=did_you_mean(str(self.name), OPTIMIZERS),
            )


def kind_of(name: str, sides: tuple[int, ...], in_layer: bool) -> str:
    """The optimizer of a weight under a rule: `muon` is for the matrices of layers alone."""
    return "adamw" if name == "muon" and not (in_layer and len(sides) > 1) else name


def states_of(kind: str, momentum: float) -> int:
    """How many tensors of the size of a weight an optimizer has for it."""
    return 2 if kind in ("adamw", "lamb") else int(momentum > 0)


class Optimizer:
    """A rule applied to weights: its tensors, and one update of the weights."""

    def __init__(self, rule: Rule, weights: Mapping[str, Tensor], in_layers: frozenset[str]):
        self._weights, self._rule = weights, rule
        with one_thread:
            self._groups = [
                _Group(self._tinygrad(kind, names, decay, factor), names, factor)
                for (kind, decay, factor), names in self._kinds(in_layers).items()
            ]
            if state := self.state():
                Tensor.realize(*state.values())

    def _kinds(self, in_layers: frozenset[str]) -> dict[tuple[str, float, float], list[str]]:
        """The weights of each kind: their optimizer, decay, and factor of the learning rate."""
        rule, kinds = self._rule, dict[tuple[str, float, float], list[str]]()
        for path, weight in self._weights.items():
            sides = shape(weight)
            decay = rule.weight_decay if len(sides) > 1 else 0.0
            name, factor = kind_of(rule.name, sides, path in in_layers), 1.0
            if name == "muon":
                factor = 0.2 * math.sqrt(max(sides[0], prod(sides[1:])))
            kinds.setdefault((name, decay, factor), []).append(path)
        return kinds

    def _tinygrad(self, kind: str, names: list[str], decay: float, factor: float) -> Any:
        rule, tensors = self._rule, [self._weights[name] for name in names]
        betas = {"b1": rule.beta1, "b2": rule.beta2, "eps": rule.epsilon}
        match kind:
            case "adamw":
                return optim.AdamW(tensors, weight_decay=decay, **betas)
            case "lamb":
                return optim.LAMB(tensors, weight_decay=decay, **betas)
            case "muon":
                # The decay is not scaled with the update.
                return optim.Muon(tensors, momentum=rule.momentum, weight_decay=decay / factor)
            case _:
                return optim.SGD(tensors, momentum=rule.momentum, weight_decay=decay)

    def state(self) -> dict[str, Tensor]:
        """The tensors that an update reads and writes, besides the weights, by name."""
        return {name: tensor for each in self._groups for name, tensor in each.state()}

    def update(self, gradients: Mapping[str, Tensor], rate: Tensor) -> list[Tensor]:
        """The tensors to realize for one update; `rate` [1] is the learning rate."""
        found = []
        with Context(TRAINING=1):  # type: ignore[no-untyped-call]
            for each in self._groups:
                each.optimizer.lr = rate * each.factor
                for name in each.names:
                    self._weights[name].grad = gradients[name]
                found += each.optimizer.schedule_step()
                each.optimizer.zero_grad()
        return found


class _Group(Frozen):
    """An optimizer of tinygrad's, and the paths of its weights."""

    optimizer: Any  # an optim.Optimizer of tinygrad
    names: list[str]
    factor: float  # of the learning rate

    def state(self) -> Iterator[tuple[str, Tensor]]:
        match self.optimizer:
            case optim.LAMB() as adam:
                first = self.names[0]
                yield from ((f"beta1^t {first}", adam.b1_t), (f"beta2^t {first}", adam.b2_t))
                kinds = {"mean": adam.m, "square": adam.v}
            case optim.LARS() as sgd:
                kinds = {"momentum": sgd.b}
        for kind, tensors in kinds.items():
            yield from zip((f"{kind} {name}" for name in self.names), tensors, strict=False)
