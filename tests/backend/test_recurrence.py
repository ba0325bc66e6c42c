"""Linear recurrences in chunks, and as C kernels, against a loop over the positions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tinygrad import Tensor

from archdsl.backend.recurrence import delta_rule, linear_attention, scan
from archdsl.passes.select_kernels import (
    CPU,
    TINYGRAD,
    ElementwiseRecurrence,
    Recurrence,
    choose,
)
from tests.backend.on_cpu import ready, tensor

Array = NDArray[Any]

TOLERANCE = 1e-5  # of the largest number
random = np.random.default_rng(5)


@pytest.fixture(autouse=True)
def on_cpu() -> None:
    ready()


def normal(*sizes: int) -> Array:
    return random.standard_normal(sizes)


def decays(kind: str, *sizes: int) -> Array:
    """Multipliers that forget slowly, at once, or now and then; or that flip signs."""
    match kind:
        case "slow":
            return 1 - 1e-3 * random.random(sizes)
        case "strong":
            return np.exp(-np.exp(3 * normal(*sizes) + 2))
        case "resets":
            forgets = random.random(sizes) < 0.05
            return np.where(forgets, 0, np.exp(-np.exp(3 * normal(*sizes) - 4)))
        case _:
            return normal(*sizes).clip(-1, 1)


def loop(given: dict[str, Array], before: bool = False) -> tuple[Array, Array]:
    """The recurrence, position by position, in float64."""
    q, k, v, decay, s = (given[name] for name in ("q", "k", "v", "decay", "start"))
    q, k = (np.repeat(x, v.shape[2] // x.shape[2], 2) for x in (q, k))
    decay = decay.reshape(*decay.shape, *[1] * (5 - decay.ndim))
    read = []
    for t in range(v.shape[1]):
        old = s
        s = decay[:, t] * old + k[:, t, :, :, None] * v[:, t, :, None]
        if "a" in given:
            corrected = np.einsum("bhk,bhkv->bhv", given["b"][:, t], old)
            s = s + given["a"][:, t, :, :, None] * corrected[:, :, None]
        read.append(np.einsum("bhk,bhkv->bhv", q[:, t], old if before else s))
    return np.stack(read, 1), s


def drawn(
    T: int, kind: str, form: int, groups: int, delta: bool, values: int = 5
) -> dict[str, Array]:
    """Inputs of a recurrence of 2 rows and 4 heads; the decay has `form` axes after [B, T]."""
    sizes = (2, T, 4, 6, values)
    given = {name: normal(2, T, groups, 6) for name in "qk"}
    given |= {"v": normal(2, T, 4, values), "decay": decays(kind, *sizes[: 2 + form])}
    given["start"] = normal(2, 4, 6, values)
    if delta:  # b is a direction, and a removes what is there
        b = normal(2, T, 4, 6) + 2  # keys that are alike
        b /= np.linalg.norm(b, axis=-1, keepdims=True)
        given |= {"b": b, "a": -b * random.random((2, T, 4, 1)) * 2}
    return {name: each.astype(np.float32).astype(float) for name, each in given.items()}


def computed(given: dict[str, Array], before: bool, kernel: str) -> list[Array]:
    tensors = {name: tensor(each) for name, each in given.items()}
    function = delta_rule if "a" in given else linear_attention
    return [each.numpy() for each in function(**tensors, before=before, kernel=kernel)]


def check(given: dict[str, Array], before: bool, kernel: str) -> None:
    for found, right in zip(computed(given, before, kernel), loop(given, before), strict=True):
        assert abs(found - right).max() <= TOLERANCE * abs(right).max()


@pytest.mark.few(2)
@pytest.mark.parametrize(
    ("kind", "form", "groups", "delta", "before", "values"),
    [
        ("slow", 1, 2, False, False, 5),
        ("resets", 2, 4, True, True, 70),
        ("strong", 2, 1, False, True, 33),
        ("signs", 3, 4, False, False, 64),
        ("slow", 1, 4, True, False, 32),
        ("signs", 2, 4, False, False, 1),
    ],
)
def test_the_kernel(
    kind: str, form: int, groups: int, delta: bool, before: bool, values: int
) -> None:
    given = drawn(70, kind, form, groups, delta, values)
    check(given, before, "recur")
    one = {name: x if name == "start" else x[:, :1] for name, x in given.items()}
    check(one, before, "recur")


def test_they_are_selected() -> None:
    assert choose(Recurrence(24, 100, 128, 64), CPU) == "recur"
    assert choose(Recurrence(1, 1, 10**6, 1), CPU) == TINYGRAD
    assert choose(ElementwiseRecurrence(3, 100), CPU) == "scan"
    assert choose(Recurrence(24, 100, 128, 64), None) == TINYGRAD


@pytest.mark.few(1)
@pytest.mark.parametrize(
    ("T", "kind", "form", "groups", "delta", "before"),
    [
        (70, "resets", 1, 2, False, False),
        (1, "signs", 1, 4, True, True),
        (140, "strong", 1, 4, False, True),
        (40, "resets", 2, 2, False, False),
        (80, "slow", 1, 4, True, False),
        (37, "signs", 2, 4, True, True),
        (9, "signs", 3, 4, False, False),
    ],
)
def test_in_chunks(
    T: int, kind: str, form: int, groups: int, delta: bool, before: bool
) -> None:
    check(drawn(T, kind, form, groups, delta), before, TINYGRAD)


@pytest.mark.few(2)
@pytest.mark.parametrize(
    ("kernel", "T"), [("scan", 1), ("scan", 23), (TINYGRAD, 23), (TINYGRAD, 1)]
)
def test_number_by_number(kernel: str, T: int) -> None:
    a, u, start = decays("signs", 2, 1, 3, 1), normal(2, T, 3, 50), normal(2, 3, 50)
    s, right = start, []
    for t in range(T):
        s = a[:, 0] * s + u[:, t]
        right.append(s)
    found, end = scan(*map(tensor, (a, u, start)), kernel=kernel)
    assert abs(found.numpy() - np.stack(right, 1)).max() <= TOLERANCE * abs(s).max()
    assert (end.numpy() == found.numpy()[:, -1]).all()


@pytest.mark.slow
@pytest.mark.parametrize(("form", "delta"), [(1, False), (2, True)])
def test_gradients(form: int, delta: bool) -> None:
    """Of each input, against those of the loop, by tinygrad too."""
    given = drawn(19, "signs", form, 4, delta)
    wanted = tensor(normal(2, 19, 4, 5))

    def gradients(y: Tensor, end: Tensor, inputs: dict[str, Tensor]) -> list[Array]:
        loss = (y * wanted).sum() + end.square().sum()
        return [each.numpy() for each in loss.gradient(*inputs.values())]

    inputs = {name: tensor(each) for name, each in given.items()}
    found = gradients(*delta_rule(**({"a": None, "b": None} | inputs)), inputs)  # type: ignore[arg-type]
    s, read = inputs["start"], []
    decay = inputs["decay"].reshape(*inputs["decay"].shape, *[1] * (3 - form))
    for t in range(19):
        old = s
        s = decay[:, t] * old + inputs["k"][:, t].unsqueeze(-1) * inputs["v"][:, t].unsqueeze(2)
        if delta:
            seen = (inputs["b"][:, t].unsqueeze(-1) * old).sum(2, keepdim=True)
            s = s + inputs["a"][:, t].unsqueeze(-1) * seen
        read.append((inputs["q"][:, t].unsqueeze(-1) * s).sum(2))
    for ours, right in zip(
        found, gradients(Tensor.stack(*read, dim=1), s, inputs), strict=True
    ):
        # That of a small decay is a quotient by it, since products are sums of logarithms.
        assert abs(ours - right).max() <= 10 * TOLERANCE * abs(right).max()
