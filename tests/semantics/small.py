"""Small specs for the tests, and their graphs."""

from __future__ import annotations

import archdsl
from archdsl.analysis import analyse
from archdsl.graph.nodes import Graph
from tests.specs import used_only


def graph(text: str, **settings: int | float | bool | str) -> Graph:
    return analyse(archdsl.parse(text), settings=settings).graph


def model(*body: str, blocks: str = "", params: str = "") -> str:
    """A model with tokens and vectors as inputs, and an output for each expression.

    It has those of the `blocks`, and of the standard ones, that it uses.
    """
    if any(name in "".join((*body, blocks)) for name in ("prepend(", "-> first")):
        blocks = 'use "blocks.arch"\n' + blocks.replace('use "blocks.arch"', "")
    params = params or ("D = 8, depth = 2" if "depth" in "".join(body) else "D = 8")
    outputs = [f"output y{i}: {line}" for i, line in enumerate(body)]
    lines = ["input tokens: int[T <= 4] < 10", "input x: float[T, D]", *outputs]
    text = f"{blocks}\nmodel M({params}) {{\n" + "\n".join(lines) + "\n}\n"
    return used_only(text) if blocks else text


def output(made: Graph, name: str = "y0") -> str:
    return str(made.types()[dict(made.outputs)[name]])
