"""Which operators are fused into a matmul."""

from __future__ import annotations

import pytest

from archdsl.graph.nodes import Apply
from archdsl.graph.parser import parse
from archdsl.graph.verify import verify
from archdsl.passes.fuse import fuse


def found(body: str, output: str) -> dict[str, str]:
    """The tails of a graph of float[4] values."""
    lines = ["graph G init normal(std = 0.02)", "input x: float[4]"]
    for number, line in enumerate(body.split("; ")):
        name, _, given = line.partition(" ")
        attrs = "dim = 4, bias = false" if name == "linear" else ""
        x, *other = given.split()
        inputs = f"{x}, other = {other[0]}" if other else f"{x}; {attrs}".removesuffix("; ")
        lines.append(f"%{number + 1} = {name}({inputs}) @ p{number + 1}: float[4]")
    graph = parse("\n".join([*lines, f"output y = {output}", ""]))
    places = {node.path: node.id for node in graph.nodes}
    tails = {}
    for node in verify(fuse(graph)).nodes:
        assert isinstance(node, Apply)
        text = "y"
        for tail in node.tail:
            sign = {"multiply": "*", "add": "+"}.get(tail.op)
            text = f"{text} {sign} {tail.other}" if sign else f"{tail.op}({text})"
        if node.tail:
            tails[node.id] = f"{places[node.path]}: {text}"
    return tails


@pytest.mark.parametrize(
    ("body", "output", "expected"),
    [
        ("linear x; add %1 x", "%2", {"%2": "%1: y + x"}),
        ("linear x; add x %1", "%2", {"%2": "%1: y + x"}),
        ("linear x; gelu %1; multiply %2 x; add %3 x", "%4", {"%4": "%1: gelu(y) * x + x"}),
        # Each add is fused into one matmul; the other term stays a value.
        ("linear x; linear x; add %1 %2", "%3", {"%3": "%1: y + %2"}),
        (
            "linear x; silu %1; linear x; multiply %2 %3; add %4 x",
            "%5",
            {"%5": "%1: silu(y) * %3 + x"},
        ),
        # The value between has another user, or is an output.
        ("linear x; gelu %1; add %2 %1", "%3", {}),
        ("linear x; multiply %1 %1", "%2", {}),
        ("linear x; add %1 x", "%1", {}),
        # Another order of operators.
        ("linear x; add %1 x; gelu %2", "%3", {"%2": "%1: y + x"}),
        ("linear x; multiply %1 x; gelu %2", "%3", {"%2": "%1: y * x"}),
        ("linear x; gelu %1; relu %2", "%3", {"%2": "%1: gelu(y)"}),
    ],
)
def test_fused_operators(body: str, output: str, expected: dict[str, str]) -> None:
    assert found(body, output) == expected
