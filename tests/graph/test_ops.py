"""Every operator against the cases of tests/cases/graph: accepted uses with their results, and
rejected uses with their messages."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from archdsl.graph.nodes import Apply
from archdsl.graph.ops import OPS
from archdsl.graph.parser import parse
from archdsl.graph.signature import Kind, Mismatch, Op, Site
from archdsl.graph.sites import site
from archdsl.graph.types import Type

CASES = Path(__file__).parents[1] / "cases" / "graph"

AXES = """
graph G init xavier
axis R <= 5 ragged tokens
axis S <= 6
axis T <= 8
"""


def cases(name: str) -> list[tuple[str, str]]:
    """The cases of a file: a use of an operator, and the lines below it."""
    text = re.sub(r"^#.*\n", "", (CASES / name).read_text(encoding="utf-8"), flags=re.MULTILINE)
    found = [case.strip().partition("\n") for case in text.split("\n\n")]
    return [(use, expected) for use, _, expected in found]


def parse_use(use: str) -> tuple[Op, Site]:
    """The operator of `name(x: type, other: type; setting = value)`, and its site with resolved
    defaults."""
    name, tensors, settings = re.fullmatch(r"(\w+)\((.*?)(; .*)?\)", use).groups(default="")
    typed = re.findall(r"(\w+): (.*?)(?=, \w+: |$)", tensors)
    inputs = "".join(f"input {param}: {type}\n" for param, type in typed)
    params = [param for param, _ in typed[:1]]
    params += [f"{param} = {param}" for param, _ in typed[1:]]
    graph = parse(f"{AXES}{inputs}%1 = {name}({', '.join(params)}{settings}): float\n")
    (node,) = graph.nodes
    assert isinstance(node, Apply)
    op, given = OPS[name], site(graph, node, graph.types())
    attr = {p.name: p.default for p in op.settings} | given.attr
    open_ = Site(given.tensors, attr, given.varying, {})
    return op, Site(given.tensors, attr | dict(op.resolve_defaults(open_)), given.varying, {})


def infer(use: str) -> Type:
    op, here = parse_use(use)
    return op.infer(here)


@pytest.mark.parametrize(("use", "expected"), cases("accepted.txt"))
def test_accepted(use: str, expected: str) -> None:
    op, here = parse_use(use)
    lines = [f"gives {op.infer(here)}"]
    lines += [
        f"weight {w.name} {list(w.shape)}: {w.init if w.std is None else f'std {w.std}'}"
        for w in op.weights(here)
    ]
    costs = {
        "flops": op.flops,
        "scratch": op.scratch,
        "cache": op.cache,
        "cache length": op.cache_length,
    }
    lines += [
        f"{name} {cost}" for name, rule in costs.items() if str(cost := rule(here)) != "0"
    ]
    assert lines == [line.strip() for line in expected.splitlines()]


@pytest.mark.parametrize(("use", "expected"), cases("refused.txt"))
def test_refused(use: str, expected: str) -> None:
    with pytest.raises(Mismatch) as caught:
        infer(use)
    refused = caught.value
    lines = [f"{refused.code}{f' at {refused.at}' if refused.at else ''}: {refused}"]
    more = {"expected": refused.expected, "found": refused.found, "help": refused.help}
    more |= {"bound": ", ".join(map(str, refused.bound)), "broken": refused.broken}
    lines += [f"{what}: {text}" for what, text in more.items() if text]
    assert lines == [line.strip() for line in expected.splitlines()]


@pytest.mark.parametrize("use", [use for use, _ in cases("accepted.txt")])
def test_each_rule_keeps_noncausal_axes(use: str) -> None:
    op, here = parse_use(use)
    tensors = {param: type.with_noncausal("RST") for param, type in here.tensors.items()}
    if tensors and not op.loss:
        assert op.infer(Site(tensors, here.attr, here.varying, {})).noncausal == set("RST")


@pytest.mark.parametrize("name", ["accepted.txt", "refused.txt"])
def test_every_operator_has_cases(name: str) -> None:
    assert {use.partition("(")[0] for use, _ in cases(name)} == set(OPS)


@pytest.mark.parametrize("op", OPS.values(), ids=list(OPS))
def test_each_row_of_the_table_is_complete(op: Op) -> None:
    assert op.doc.endswith(".")
    assert op.example.startswith(op.name)
    # The first tensor is the value before the arrow.
    tensors = [param for param in op.params if param.kind is Kind.TENSOR]
    assert all(param.required for param in tensors[:1])
    for param in op.params:
        assert (param.kind is Kind.CHOICE) == bool(param.choices)
