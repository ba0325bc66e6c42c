"""`expect`: facts about a model, as a paper's table states them, held against its graph."""

from __future__ import annotations

from collections.abc import Iterable

from archdsl.graph.cost import BYTES, flops, parameter_count
from archdsl.graph.nodes import Graph
from archdsl.semantics.conditions import COMPARISONS
from archdsl.semantics.elaborate import Elaborator
from archdsl.semantics.report import Report
from archdsl.semantics.values import Env, Function, Poison, Scalar, Tensor, Value, describe
from archdsl.syntax import ast
from archdsl.syntax.printer import expression


def hold(
    facts: Iterable[ast.Expect | ast.ExpectType],
    graph: Graph,
    work: Elaborator,
    env: Env,
    report: Report,
) -> None:
    """Reports every fact that does not hold.

    Beside the model's own names a fact may use `params`, `weight_bytes` (of float32) and
    `flops(T = …)`, each varying axis at its bound where it is not given.
    """
    count, formula = parameter_count(graph), flops(graph)
    bounds = {v.name: v.bound for v in graph.varying}
    names: dict[str, Value] = {
        "params": Scalar(count),
        "weight_bytes": Scalar(count * BYTES["float32"]),
        "flops": Function(lambda **at: formula.at(bounds | at), tuple(bounds), optional=True),
    }
    inner = Env(env.scope, {**names, **env.names}, env.labels)
    for fact in facts:
        match fact:
            case ast.Expect():
                _compare(fact, inner, work, report)
            case ast.ExpectType():
                value = work.tensor(fact.name, inner)
                if isinstance(value, Tensor):
                    work.shapes.agrees(value.type, fact.type, inner, f"`{fact.name.id}`")


def _compare(fact: ast.Expect, env: Env, work: Elaborator, report: Report) -> None:
    left, right = work.number(fact.left, env), work.number(fact.right, env)
    if isinstance(left, Poison) or isinstance(right, Poison):
        return
    if isinstance(left.value, str) or isinstance(right.value, str):
        text = left if isinstance(left.value, str) else right
        report.add("expect", "only numbers are compared", fact.span, found=describe(text))
    elif not COMPARISONS[fact.op](left.value, right.value):
        claim = f"{expression(fact.left)} {fact.op} {expression(fact.right)}"
        report.add(
            "expect",
            f"`{claim}` does not hold",
            fact.span,
            expected=f"{fact.op} {right.value:_}",
            found=f"{left.value:_}",
        )
