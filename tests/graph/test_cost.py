"""Costs, compared with published numbers, with single matmuls, and with brute force."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path

import pytest

from archdsl.analysis import analyse
from archdsl.graph.cost import cost, flops, parameter_count
from archdsl.graph.nodes import Apply, Graph, Node, Stack
from archdsl.graph.ops import OPS
from archdsl.graph.parser import parse
from archdsl.graph.sites import parameters, site

ROOT = Path(__file__).parents[2]
SPECS = ROOT / "specs"

SMALL = {
    "gpt": {"vocab": 50, "context": 16, "D": 12, "heads": 3, "depth": 5},
    "vit": {"image": 32, "patch": 8, "classes": 10, "D": 12, "heads": 3, "depth": 4},
    "transformer": {"vocab": 50, "context": 16, "D": 12, "heads": 3, "depth": 5},
    "vaswani2017": {"vocab": 50, "context": 16, "D": 12, "heads": 3, "depth": 2},
}


def small(name: str) -> Graph:
    return analyse(str(SPECS / f"{name}.arch"), settings=SMALL[name]).graph


# -- published --

GPT3 = {"vocab": 50257, "context": 2048, "D": 12288, "heads": 96, "depth": 96}


def test_gpt3() -> None:
    """Brown et al. 2020, table D.1: 174.6 billion parameters and 3.14e23 flops to train on
    300 billion tokens, which is six for each parameter and token. Its head is tied; this
    spec's has a matrix and biases of its own."""
    found = cost(analyse(str(SPECS / "gpt.arch"), settings=GPT3).graph)
    tied = found.params - (GPT3["D"] + 1) * GPT3["vocab"]
    assert tied == pytest.approx(174.6e9, rel=0.01)
    # A forward pass is a third of that. The matmuls of attention have no weights.
    pairs = 2048 * 2048 * 4 * 12288 * 96
    assert (found.flops - pairs) / 2048 == pytest.approx(3.14e23 / 300e9 / 3, rel=0.01)
    assert found.weight_bytes == 4 * found.params
    assert found.cache_bytes == 4 * 2 * 96 * 2048 * 12288


def test_a_cost_needs_no_tensor() -> None:
    program = f"""
import sys
from archdsl.graph.cost import cost
from archdsl.analysis import analyse
cost(analyse("specs/gpt.arch", settings={GPT3}).graph)
print(sorted({{"tinygrad", "numpy"}} & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


# -- matmuls --


def test_flops_are_those_of_the_matmuls() -> None:
    T, D, h, vocab = 7, 12, 4, 50
    layer = [
        *[(T, D, D)] * 4,  # queries, keys, values, and what comes out
        *[(T, h, T)] * 3,  # the scores of each head
        *[(T, T, h)] * 3,  # the values of each head, weighted
        (T, D, 4 * D),
        (T, 4 * D, D),
    ]
    products = [*layer * 5, (T, D, vocab)]
    assert flops(small("gpt")).at({"T": T}) == sum(2 * m * k * n for m, k, n in products)


def test_flops_of_two_streams() -> None:
    S, T, D, h, vocab = 5, 7, 12, 4, 50

    def mlp(n: int) -> list[tuple[int, int, int]]:
        return [(n, D, 4 * D), (n, 4 * D, D)]

    def attention(q: int, k: int) -> list[tuple[int, int, int]]:
        return [(q, D, D), (k, D, D), (k, D, D), (q, D, D), *[(q, h, k), (q, k, h)] * 3]

    encoder = attention(S, S) + mlp(S)
    decoder = attention(T, T) + mlp(T) + attention(T, S) + mlp(T)
    products = [*(encoder + decoder) * 5, (T, D, vocab)]
    found = flops(small("transformer"))
    assert found.at({"S": S, "T": T}) == sum(2 * m * k * n for m, k, n in products)


@pytest.mark.parametrize("name", SMALL)
def test_parameters_of_all_layers_are_counted(name: str) -> None:
    graph = small(name)
    listed = list(parameters(graph))
    assert parameter_count(graph) == sum(prod(p.weight.shape) for p in listed)
    assert len({p.path for p in listed}) == len(listed)


# -- memory --


def test_the_peak_of_a_small_graph() -> None:
    graph = parse("""
graph G init xavier
axis T <= 8
input x: float[T, D = 4]
%1 = relu(x) @ relu: float[T, D = 4]
%2 = mlp(%1; sizes = (7, 3), act = "relu", bias = true) @ mlp: float[T, 3]
%3 = linear(%2; dim = 4, bias = true) @ linear: float[T, 4]
%4 = add(%1, other = %3) @ add: float[T, 4]
%5 = linear(%4; dim = 6, bias = true) @ head: float[T, 6]
output y = %5
""")
    # At each step, for one position: 4; 4 + 3 and 7 inside; 4 + 3 + 4; 4 + 4 + 4; 4 + 6.
    assert cost(graph, {"T": 3}).activation_bytes == 4 * 3 * 14
    assert cost(graph, {"T": 3}, "bfloat16").activation_bytes == 2 * 3 * 14
    assert cost(graph).activation_bytes == 4 * 8 * 14


@dataclass
class Made:
    """A value of a forward pass with all stacks unfolded."""

    name: str
    size: int
    inside: int
    uses: tuple[str, ...]


def unfolded(graph: Graph, at: dict[str, int]) -> Iterator[Made]:
    types, names = graph.types(), {i.name: i.name for i in graph.inputs}

    def run(nodes: tuple[Node, ...], copy: str) -> Iterator[Made]:
        for node in nodes:
            if isinstance(node, Apply):
                inside = OPS[node.op].scratch(site(graph, node, types)).at(at)
                uses = tuple(names[ref] for _, ref in node.inputs)
                names[node.id] = f"{node.id}{copy}"
                yield Made(names[node.id], node.type.elements.at(at), inside, uses)
            elif isinstance(node, Stack):
                names[node.id] = names[node.input]
                for i in range(node.count):
                    body = node.bodies[node.kind(i)]
                    names[body.carry] = names[node.id]
                    yield from run(body.nodes, f"{copy}.{i}")
                    names[node.id] = names[body.result]

    yield from run(graph.nodes, "")
    outputs = tuple(names[ref] for _, ref in graph.outputs)
    yield Made("outputs", 0, 0, outputs)


# The peak is in a middle layer: alive are the stack's input, which is used again after it, the
# layer's input, and %2, which only the next layer needs.
MIDDLE = """
graph G init xavier
input x: float[4]
%1 = relu(x) @ relu: float[4]
%2 = tanh(x) @ tanh: float[4]
%3 = silu(x) @ silu: float[4]
%8 = stack(%1) * 4 @ stack: float[4]
  take %4: float[4]
  %5 = add(%4, other = %2) @ add: float[4]
  %6 = mlp(%5; sizes = (50, 4), act = "relu", bias = true) @ mlp: float[4]
  %7 = add(%6, other = %4) @ add_2: float[4]
  yield %7
%9 = add(%8, other = %1) @ add: float[4]
output y = %9
output early = %3
"""


def test_the_peak_can_be_in_a_middle_layer() -> None:
    # %1, %2, %3, %4, %5 and %6, and the hidden layer.
    assert cost(parse(MIDDLE)).activation_bytes == 4 * (6 * 4 + 50)


@pytest.mark.parametrize("name", [*SMALL, "middle"])
def test_the_peak_equals_that_of_unfolded_layers(name: str) -> None:
    graph = parse(MIDDLE) if name == "middle" else small(name)
    at = dict.fromkeys((axis.name for axis in graph.varying), 11)
    made = list(unfolded(graph, at))
    needed = []
    for step, value in enumerate(made):
        later = {ref for each in made[step:] for ref in each.uses} | {value.name}
        alive = [each.size for each in made[: step + 1] if each.name in later]
        needed.append(sum(alive) + value.inside)
    # A value is alive until the end of its last use, and so is the result.
    assert cost(graph, at).activation_bytes == 4 * max(needed)


def test_counting_does_not_take_longer_for_many_layers() -> None:
    graph = parse("""
graph G init xavier
input x: float[4]
%4 = stack(x) * 1_000_000_000 @ a: float[4]
  take %1: float[4]
  %3 = stack(%1) * 1_000_000_000 @ b: float[4]
    take %2: float[4]
    %5 = linear(%2; dim = 4, bias = false) @ linear: float[4]
    yield %5
  yield %3
output y = %4
""")
    found = cost(graph)
    assert found.params == 16 * 10**18
    assert found.activation_bytes == 4 * 8


def test_attention_to_a_memory_is_cached_with_its_own_axis() -> None:
    found = cost(small("transformer"), {"S": 3, "T": 9})
    assert str(found.cache_formula) == "480 S + 480 T"  # 4 bytes * 2 * 5 layers * D
    assert found.cache_bytes == 480 * 12
    assert found.sizes == {"S": 3, "T": 9}
