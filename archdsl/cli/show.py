"""`archdsl show`: one stage of the compiler."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

from archdsl.analysis import analyse
from archdsl.cli.common import Subparsers, add_command, add_json, add_spec, parse_settings
from archdsl.diagnostics import fail
from archdsl.graph.cost import BYTES
from archdsl.graph.nodes import Graph
from archdsl.graph.parser import parse
from archdsl.graph.printer import show
from archdsl.graph.sites import parameters
from archdsl.graph.verify import BrokenGraph, verify
from archdsl.passes import PIPELINE, apply_all, optimise
from archdsl.passes.programs import cpu_programs
from archdsl.passes.split_decoding import find_tokens_and_logits, split_decoding
from archdsl.semantics.library import read
from archdsl.syntax import ast
from archdsl.syntax.traversal import children

GRAPH = ".graph"  # the suffix of a file with a printed graph
STAGES = ("ast", "typed", "passes", "program", "weights")


def add(commands: Subparsers[argparse.ArgumentParser]) -> None:
    parser = add_command(
        commands,
        "show",
        "FILE[:VARIANT]",
        "archdsl show gpt.arch --emit typed > gpt.graph",
        "archdsl show gpt.graph --emit program",
    )
    add_spec(parser)
    parser.add_argument(
        "--emit",
        choices=STAGES,
        default="typed",
        help="ast: the syntax tree; typed: the typed graph; passes: the graph after each pass; "
        "program: the programs for the CPU; weights: paths and shapes (default: %(default)s)",
    )
    add_json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    if args.spec.endswith(GRAPH):
        tree, graph = None, _read_graph(args.spec)
    else:
        analysis = analyse(args.spec, settings=parse_settings(args))
        tree, graph = analysis.file, analysis.graph
    match args.emit:
        case "ast":
            if tree is None:
                fail(
                    "argument-value",
                    f"{args.spec} is a printed graph, which has no syntax tree",
                    expected="a spec FILE.arch",
                )
            data: Any = _tree(tree)
            lines = _tree_lines(data)
        case "weights":
            data = [{"path": p.path, "shape": list(p.weight.shape)} for p in parameters(graph)]
            lines = ("{path}: {shape}".format(**each) for each in data)
        case _:
            data = [{"title": title, "text": text} for title, text in _texts(args.emit, graph)]
            lines = (_titled(**each) for each in data)
    print(json.dumps(data, indent=2) if args.json else "\n".join(lines))
    return 0


def _read_graph(path: str) -> Graph:
    """Reads a graph printed by `show --emit typed`."""
    try:
        return verify(parse(read(path).text, path))
    except BrokenGraph as broken:
        fail(
            "file",
            f"{path}: {broken}",
            help="`archdsl show FILE.arch --emit typed` prints a valid graph",
        )


def _texts(stage: str, graph: Graph) -> Iterator[tuple[str, str | None]]:
    """The graphs of a stage, each with a title; None for a pass that changes nothing."""
    match stage:
        case "passes":
            before = show(graph)
            for step, passed in zip(PIPELINE, apply_all(graph), strict=True):
                after = show(passed)
                yield f"after {step.__name__}", None if after == before else after
                before = after
            yield from _decoding(passed)
        case "program":
            programs = cpu_programs(optimise(graph))
            yield from ((title, str(program)) for title, program in programs)
        case _:
            yield "", show(graph)


def _titled(title: str, text: str | None) -> str:
    if text is None:
        return f"# {title}: unchanged"
    return (f"# {title}\n" if title else "") + text.removesuffix("\n")


def _decoding(graph: Graph) -> Iterator[tuple[str, str]]:
    """How a decoder is split into a part that runs once and a step."""
    if isinstance(find_tokens_and_logits(graph), str):
        return
    plan = split_decoding(graph)
    if plan.once is not None:
        yield "after split_decoding: once", show(plan.once)
    states = (
        f"state {each}; {each.elements * BYTES['float32']} bytes\n" for each in plan.states
    )
    title = f"after split_decoding: a step along {plan.axis} of {plan.tokens}"
    yield title, "".join([*states, show(plan.step)])


def _tree(node: ast.Node) -> dict[str, Any]:
    """A node as data: its class, its own fields, and its children."""
    own = {each.name: getattr(node, each.name) for each in fields(node)}
    return {
        "node": type(node).__name__,
        "fields": {name: own[name] for name in own if isinstance(own[name], str | bool)},
        "children": [_tree(child) for child in children(node)],
    }


def _tree_lines(tree: dict[str, Any], indent: str = "") -> Iterator[str]:
    """Yields a line for each node: its class and then its own fields."""
    own = (f"{name}={value!r}" for name, value in tree["fields"].items())
    yield " ".join([indent + tree["node"], *own])
    for child in tree["children"]:
        yield from _tree_lines(child, indent + "  ")
