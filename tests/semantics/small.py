"""Small specs for the tests, and their graphs."""

from __future__ import annotations

import archdsl
from archdsl.analysis import analyse
from archdsl.graph.nodes import Graph


def graph(text: str, **settings: int | float | bool | str) -> Graph:
    return analyse(archdsl.parse(text), settings=settings).graph


def model(*body: str, blocks: str = "", params: str = "D = 8, depth = 2") -> str:
    """A model with tokens and vectors as inputs, and an output for each expression."""
    outputs = [f"output y{i}: {line}" for i, line in enumerate(body)]
    lines = ["input tokens: int[T <= 4] < 10", "input x: float[T, D]", *outputs]
    return f"{blocks}\nmodel M({params}) {{\n" + "\n".join(lines) + "\n}\n"


def output(made: Graph, name: str = "y0") -> str:
    return str(made.types()[dict(made.outputs)[name]])
