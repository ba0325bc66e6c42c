"""`archdsl show`: a model at each stage of the compiler."""

from __future__ import annotations

import argparse
from dataclasses import fields

from archdsl.analysis import analyse
from archdsl.cli.common import Subparsers, add_spec, command, settings
from archdsl.diagnostics import fail
from archdsl.graph.cost import BYTES
from archdsl.graph.nodes import Graph
from archdsl.graph.parser import parse
from archdsl.graph.printer import show
from archdsl.graph.sites import parameters
from archdsl.graph.verify import BrokenGraph, verify
from archdsl.passes import PIPELINE, apply_all, optimise
from archdsl.passes.program import lower
from archdsl.passes.select_kernels import CPU
from archdsl.passes.split_decoding import find_tokens_and_logits, split_decoding
from archdsl.semantics.library import read
from archdsl.syntax import ast
from archdsl.syntax.traversal import children

GRAPH = ".graph"  # the suffix of a file with a printed graph
STAGES = ("ast", "typed", "passes", "program", "weights")


def add(commands: Subparsers[argparse.ArgumentParser]) -> None:
    parser = command(
        commands,
        "show",
        "print a model as one stage of the compiler has it",
        "archdsl show gpt.arch --emit typed",
    )
    add_spec(parser)
    parser.add_argument(
        "--emit",
        choices=STAGES,
        default="typed",
        help="the tree, the typed graph, the graph after each pass, the programs that run on "
        "the CPU, or the weights' paths "
        "(default: %(default)s)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    if args.spec.endswith(GRAPH):
        return _emit_graph(args, _read_graph(args.spec))
    analysis = analyse(args.spec, settings=settings(args))
    match args.emit:
        case "ast":
            print(_tree(analysis.file))
        case _:
            return _emit_graph(args, analysis.graph)
    return 0


def _emit_graph(args: argparse.Namespace, graph: Graph) -> int:
    match args.emit:
        case "ast":
            fail("argument-value", f"{args.spec} is a graph, which has no tree of a spec")
        case "typed":
            print(show(graph), end="")
        case "passes":
            for step, passed in zip(PIPELINE, apply_all(graph), strict=True):
                print(f"# after {step.__name__}")
                print(show(passed), end="")
            _decoding(passed)
        case "program":
            _programs(optimise(graph))
        case "weights":
            for each in parameters(graph):
                print(f"{each.path}: {list(each.weight.shape)}")
    return 0


def _read_graph(path: str) -> Graph:
    """The graph of a file that holds one as `show --emit typed` prints it."""
    try:
        return verify(parse(read(path).text, path))
    except BrokenGraph as broken:
        fail("file", f"{path}: {broken}", help="`archdsl show FILE` prints a graph that holds")


def _programs(graph: Graph) -> None:
    """What runs on the CPU: a whole sequence, and where tokens are predicted what is computed
    once, and a step of one token."""
    bounds = {axis.name: axis.bound for axis in graph.varying}
    print("# whole")
    print(lower(graph, 1, bounds, target=CPU), end="")
    if isinstance(find_tokens_and_logits(graph), str):
        return
    plan = split_decoding(graph)
    for title, half in (("once", plan.once), (f"a step along {plan.axis}", plan.step)):
        if half is not None:
            sizes = {axis.name: axis.bound for axis in half.varying}
            print(f"# {title}")
            print(lower(half, 1, {**sizes, plan.axis: 1}, target=CPU), end="")


def _decoding(graph: Graph) -> None:
    """How the model is computed step by step, where it predicts tokens."""
    if isinstance(find_tokens_and_logits(graph), str):
        return
    plan = split_decoding(graph)
    if plan.once is not None:
        print("# after split_decoding: once")
        print(show(plan.once), end="")
    print(f"# after split_decoding: a step along {plan.axis} of {plan.tokens}")
    for state in plan.states:
        print(f"state {state}; {state.elements * BYTES['float32']} bytes")
    print(show(plan.step), end="")


def _tree(node: ast.Node, indent: str = "") -> str:
    """A tree, a node a line, with what it says itself behind its class."""
    own = []
    for each in fields(node):
        value = getattr(node, each.name)
        if isinstance(value, str | bool):
            own.append(f"{each.name}={value!r}")
    line = f"{indent}{type(node).__name__} {' '.join(own)}".rstrip()
    return "\n".join([line, *(_tree(child, indent + "  ") for child in children(node))])
