"""`expect`: facts about a model, such as the sizes in a paper's table, checked on its graph."""

from __future__ import annotations

from collections.abc import Iterable

from archdsl.graph.cost import BYTES, flops, parameter_count
from archdsl.graph.nodes import Graph
from archdsl.semantics.conditions import COMPARISONS
from archdsl.semantics.elaborate import Elaborator
from archdsl.semantics.values import (
    POISON,
    Env,
    Function,
    Poison,
    Scalar,
    Tensor,
    Value,
    describe,
)
from archdsl.syntax import ast
from archdsl.syntax.printer import expression


def check_facts(
    facts: Iterable[ast.Expect | ast.ExpectType],
    graph: Graph | None,
    elaborator: Elaborator,
    env: Env,
) -> None:
    """Reports every fact that is false.

    A fact can use the names of the model, `params`, `weight_bytes` (of float32) and
    `flops(T = …)`, each varying axis at its bound unless it is given. Without a graph, because
    the model has mistakes, only facts that do not need it are checked.
    """
    names: dict[str, Value] = dict.fromkeys(
        ("params", "weight_bytes", "flops"), POISON
    ) | _counts(graph)
    inner = Env(env.scope, {**names, **env.names}, env.labels)
    for fact in facts:
        match fact:
            case ast.Expect():
                _compare(fact, inner, elaborator)
            case ast.ExpectType():
                value = elaborator.tensor(fact.name, inner)
                if isinstance(value, Tensor):
                    elaborator.shapes.check(value.type, fact.type, inner, f"`{fact.name.id}`")


def _counts(graph: Graph | None) -> dict[str, Value]:
    """The counts of a graph that facts can use."""
    if graph is None:
        return {}
    count, bounds = parameter_count(graph), graph.bounds
    return {
        "params": Scalar(count),
        "weight_bytes": Scalar(count * BYTES["float32"]),
        "flops": Function(
            lambda **at: flops(graph).at(bounds | at), tuple(bounds), optional=True
        ),
    }


def _compare(fact: ast.Expect, env: Env, elaborator: Elaborator) -> None:
    left, right = elaborator.number(fact.left, env), elaborator.number(fact.right, env)
    if isinstance(left, Poison) or isinstance(right, Poison):
        return
    if isinstance(left.value, str) or isinstance(right.value, str):
        text = left if isinstance(left.value, str) else right
        elaborator.report.add(
            "expect", "`expect` compares only numbers", fact.span, found=describe(text)
        )
    elif not COMPARISONS[fact.op](left.value, right.value):
        claim = f"{expression(fact.left)} {fact.op} {expression(fact.right)}"
        elaborator.report.add(
            "expect",
            f"`{claim}` is false",
            fact.span,
            expected=f"{fact.op} {right.value:_}",
            found=f"{left.value:_}",
        )
