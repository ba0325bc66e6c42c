"""The end token of a config, against the padding of what a loss compares.

Losses skip padding. If the end token has the number of the padding, a model never learns to
end.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping

from archdsl.graph.nodes import Graph
from archdsl.published.config_values import flatten, is_named, value_of
from archdsl.published.weight_maps import active_lines
from archdsl.semantics.elaborate import Elaborator
from archdsl.semantics.values import Env
from archdsl.syntax import ast

_FIELD = "eos_token_id"


def ends_of_spec(file: ast.File, model: ast.Model, work: Elaborator, env: Env) -> set[int]:
    """The end tokens that the `config` blocks of a model require."""
    blocks = [
        line
        for item in file.items
        if isinstance(item, ast.Weights) and item.model.id == model.name.id
        for line in active_lines(item.rules, work, env)
        if isinstance(line, ast.Config)
    ]
    lines = [line for block in blocks for line in active_lines(block.rules, work, env)]
    values = [
        value_of(line.value, work, env)
        for line in lines
        if isinstance(line, ast.Setting) and _is_end(line.fields[0].id)
        if not is_named(line.value, "any")
    ]
    return set(_numbers(values))


def ends_of_config(config: Mapping[str, object]) -> set[int]:
    """The end tokens that a published config gives."""
    return set(_numbers(v for name, v in flatten(config).items() if _is_end(name)))


def padding_that_ends(graph: Graph, ends: Collection[int]) -> list[str]:
    """A warning, with the cure, for each value of the loss that is padded with an end token."""
    compared = {ref for term in graph.losses for _, ref in term.loss.inputs}
    return [
        f"`{each.name}` is padded with {each.pad}, which is the end token: the loss skips it, "
        "so the model never learns to end; write `pad` with a number that no text has"
        for each in (*graph.inputs, *graph.labels)
        if each.name in compared and each.pad is not None and each.pad in ends
    ]


def _is_end(field: str) -> bool:
    return field.rpartition(".")[2] == _FIELD


def _numbers(values: Iterable[object]) -> Iterator[int]:
    for value in values:
        yield from (
            n for n in (value if isinstance(value, list) else [value]) if type(n) is int
        )
