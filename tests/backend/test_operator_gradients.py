"""The gradient of every operator against slopes, with the CPU's kernels and with tinygrad's.

A slope is that of the outputs in float32 along a random direction of one input or weight, from
four points: its error is of fourth order in the step. `test_gradients.py` compares the kernels
themselves with PyTorch in float64, over sizes that fit no tile.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tinygrad import Tensor

import archdsl
from archdsl.analysis import analyse
from archdsl.backend import interpret
from archdsl.backend.tensors import copy_in
from archdsl.graph.nodes import Apply, Graph, Input, walk
from archdsl.graph.ops import FORMS, OPS
from archdsl.model import Model
from archdsl.syntax.parser import parse
from tests.backend.gradient_cases import CASES, WITHOUT
from tests.reference.test_losses import LOSSES

Array = NDArray[Any]
STEP = 2.0**-6
DIRECTIONS = 3  # of each input and weight
TOLERANCE = 1e-3  # of the largest slope that a direction of its length can have
ROWS, LENGTH = 2, 5
FIRST = ("attention", "mlp", "norm", "Scan")  # the others take minutes together

NAMES = [
    pytest.param(
        name,
        number,
        marks=pytest.mark.long if name in FIRST and not number else pytest.mark.slow,
    )
    for name, cases in CASES.items()
    for number in range(len(cases))
]


def nodes(graph: Graph) -> Iterator[str]:
    """The operators of a graph, and the kinds of its other nodes."""
    for node, _ in walk(graph.nodes):
        yield node.op if isinstance(node, Apply) else type(node).__name__
        yield from (each.op for each in getattr(node, "body", ()) if isinstance(each, Apply))


def compiled(lines: str, kernels: str = "best") -> Model:
    spec = archdsl.parse(f"model M() {{\n{lines}\n}}")
    return archdsl.compile(spec, device="CPU", kernels=kernels)


def test_each_operator_has_a_case() -> None:
    losses = {name for name, row in OPS.items() if row.loss}
    assert losses == {name for name in losses if any(f"{name}(" in each for each in LOSSES)}
    wanted = {*OPS, *FORMS, "Stack", "Scan"} - losses
    assert wanted == {*CASES, *WITHOUT}


@pytest.mark.parametrize("name", CASES)
def test_each_case_has_its_operator(name: str) -> None:
    for lines in CASES[name]:
        graph = analyse(parse(f"model M() {{\n{lines}\n}}", "case.arch"), None, {}).graph
        found = {*nodes(graph)}
        assert name in found | {each.lower() for each in found}, lines


def drawn(each: Input, random: np.random.Generator) -> Array:
    """A batch of an input: no two floats are equal, and none is near 0."""
    shape = (ROWS, *(axis.size.at({"T": LENGTH, "S": LENGTH + 1}) for axis in each.type.axes))
    match each.type.dtype:
        case "float":
            count = int(np.prod(shape))
            values = np.concatenate(
                [np.linspace(-2, -0.2, count // 2), np.linspace(0.2, 2, count - count // 2)]
            )
            return random.permutation(values).reshape(shape).astype(np.float32)
        case "bool":
            return random.random(shape) < 0.5
        case _:
            found = random.integers(0 if each.pad is None else 1, each.type.below or 2, shape)
            if each.pad is not None:
                found[-1, LENGTH - 2 :] = each.pad
            return found


@pytest.mark.parametrize("kernels", ["best", "tinygrad"])
@pytest.mark.parametrize(("name", "number"), NAMES)
def test_gradients_are_slopes(name: str, number: int, kernels: str) -> None:
    model = compiled(CASES[name][number], kernels)
    random = np.random.default_rng(zlib.crc32(f"{name} {number}".encode()))
    given = {each.name: drawn(each, random) for each in model.graph.inputs}
    for path, weight in model.parameters.items():
        start = model.weights[path].weight.init == "ones"
        values = start + random.normal(0, 0.5, weight.shape)
        copy_in(weight, values.astype(np.float32))
    by = {
        key: random.standard_normal(each.shape).astype(np.float32)
        for key, each in model(**given).items()
    }
    found = gradients(model, given, by)
    assert found
    for key, gradient in found.items():
        value = given[key] if key in given else model.parameters[key].numpy().copy()

        def at(moved: Array, key: str = key) -> float:
            if key in given:
                return total(model, given | {key: moved}, by)
            copy_in(model.parameters[key], moved)
            return total(model, given, by)

        for _ in range(DIRECTIONS):
            direction = random.choice([-1.0, 1.0], value.shape).astype(np.float32)
            slope = slope_of(at, value, direction)
            most = max(1, float(np.abs(gradient).sum()))
            assert abs(float((gradient * direction).sum()) - slope) <= TOLERANCE * most, key
        at(value)


def gradients(model: Model, given: dict[str, Array], by: dict[str, Array]) -> dict[str, Array]:
    """The gradients of the sum of outputs times `by`, of each float input and weight."""
    executable = model.executable
    tensors = {name: executable.placed(array) for name, array in given.items()}
    program = executable.lowered(executable.graph, tensors, trains=True)
    out = interpret.forward(executable.run(program), tensors)
    loss = sum((out[key] * executable.placed(each)).sum() for key, each in by.items())
    wanted = {name: each for name, each in tensors.items() if each.is_floating_point()}
    wanted |= dict(model.parameters.items())
    assert isinstance(loss, Tensor)
    found = dict(zip(wanted, loss.gradient(*wanted.values()), strict=True))
    Tensor.realize(*found.values())
    return {name: each.numpy() for name, each in found.items()}


def total(model: Model, given: dict[str, Array], by: dict[str, Array]) -> float:
    found = model(**given)
    return sum(
        float((found[key].numpy().astype(float) * each).sum()) for key, each in by.items()
    )


def slope_of(function: Callable[[Array], float], value: Array, direction: Array) -> float:
    """The slope along a direction, from four points (Abramowitz and Stegun, 25.3.6)."""
    far, near = (
        function(value + step * direction) - function(value - step * direction)
        for step in (2 * STEP, STEP)
    )
    return (8 * near - far) / (12 * STEP)


@pytest.mark.long
def test_dropout() -> None:
    """The gradient of each number is its part of the value: 0 or 1 / (1 - rate)."""
    model = compiled("input x: float[T <= 7, 400] output y: float[T, 400] = x -> dropout(0.25)")
    executable = model.executable
    x = Tensor.ones(2, 3, 400, device="CPU").contiguous().realize()
    context = executable.run(executable.lowered(executable.graph, {"x": x}, trains=True))
    context.key = Tensor([1, 2], dtype="uint32", device="CPU")
    y = interpret.forward(context, {"x": x})["y"]
    (gradient,) = y.sum().gradient(x)
    Tensor.realize(y, gradient)
    assert np.array_equal(y.numpy(), gradient.numpy())
    assert set(np.unique(y.numpy())) == {np.float32(0), np.float32(1) / np.float32(0.75)}
