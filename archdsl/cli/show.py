"""`archdsl show`: one stage of the compiler."""

from __future__ import annotations

import argparse
from dataclasses import fields

from archdsl.analysis import analyse
from archdsl.cli.common import Subparsers, add_command, add_spec, parse_settings
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
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    if args.spec.endswith(GRAPH):
        return _emit_graph(args, _read_graph(args.spec))
    analysis = analyse(args.spec, settings=parse_settings(args))
    match args.emit:
        case "ast":
            print(_format_tree(analysis.file))
        case _:
            return _emit_graph(args, analysis.graph)
    return 0


def _emit_graph(args: argparse.Namespace, graph: Graph) -> int:
    match args.emit:
        case "ast":
            fail(
                "argument-value",
                f"{args.spec} is a printed graph, which has no syntax tree",
                expected="a spec FILE.arch",
            )
        case "typed":
            print(show(graph), end="")
        case "passes":
            before = show(graph)
            for step, passed in zip(PIPELINE, apply_all(graph), strict=True):
                after = show(passed)
                changed = after != before
                print(f"# after {step.__name__}" + ("" if changed else ": unchanged"))
                print(after if changed else "", end="")
                before = after
            _print_decoding(passed)
        case "program":
            for title, program in cpu_programs(optimise(graph)):
                print(f"# {title}")
                print(program, end="")
        case "weights":
            for each in parameters(graph):
                print(f"{each.path}: {list(each.weight.shape)}")
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


def _print_decoding(graph: Graph) -> None:
    """Prints how a decoder is split into a part that runs once and a step."""
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


def _format_tree(node: ast.Node, indent: str = "") -> str:
    """Formats a tree: one node per line, its class and then its own fields."""
    own = []
    for each in fields(node):
        value = getattr(node, each.name)
        if isinstance(value, str | bool):
            own.append(f"{each.name}={value!r}")
    line = f"{indent}{type(node).__name__} {' '.join(own)}".rstrip()
    return "\n".join([line, *(_format_tree(child, indent + "  ") for child in children(node))])
