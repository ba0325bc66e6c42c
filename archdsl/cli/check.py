"""`archdsl check`: all errors of a spec, or the types and the cost of its models."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from archdsl.analysis import Analysis, analyse_models
from archdsl.cli.colour import print_diagnostics
from archdsl.cli.common import (
    Subparsers,
    add_command,
    add_json,
    add_spec,
    parse_settings,
    positive_integer,
    print_note,
)
from archdsl.cli.table import records
from archdsl.describe.breakdown import breakdown, breakdown_at, shorten
from archdsl.describe.facts import facts
from archdsl.diagnostics import ArchError, Diagnostic
from archdsl.graph.cost import cost, format_bytes, format_count
from archdsl.graph.nodes import Graph, Input, describe_losses
from archdsl.graph.printer import literal
from archdsl.graph.types import Type
from archdsl.published.end_tokens import ends_of_spec, padding_that_ends


def add(commands: Subparsers[argparse.ArgumentParser]) -> None:
    parser = add_command(
        commands,
        "check",
        "FILE[:VARIANT]",
        "archdsl check gpt.arch --set depth=24",
        "archdsl check specs/llama.arch --json",
        exit_status="1 if the spec has errors",
    )
    add_spec(parser)
    parser.add_argument(
        "--blocks",
        metavar="LEVELS",
        nargs="?",
        type=positive_integer,
        const=2,
        help="print the parameters and the flops of each block, and of the blocks inside, down "
        "to this level (default: %(const)s)",
    )
    add_json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    given = parse_settings(args)
    analyses, problems = list[Analysis](), tuple[Diagnostic, ...]()
    try:
        analyses.extend(analyse_models(args.spec, given))  # also those before a mistake
    except ArchError as error:
        problems = error.diagnostics
    warnings = [] if problems else [text for each in analyses for text in _warnings(each)]
    if args.json:
        import json  # most runs do not need it

        data = {"diagnostics": [d.as_dict() for d in problems], "warnings": warnings}
        print(json.dumps(data | {"models": [_data(a.graph, args) for a in analyses]}, indent=2))
    elif problems:
        print_diagnostics(str(ArchError(problems)))
    elif analyses:
        for each in analyses:
            print(_report(each.graph))
            if args.blocks:
                print("\n".join(_table(each.graph, args.blocks)))
        for text in warnings:
            print_note(f"warning: {text}")
    else:
        print(f"{args.spec}: no errors; the file has blocks but no model")
    return 1 if problems else 0


def _warnings(found: Analysis) -> list[str]:
    ends = ends_of_spec(found.file, found.model, found.elaborator, found.env)
    return [f"{found.graph.name}: {text}" for text in padding_that_ends(found.graph, ends)]


def _report(graph: Graph) -> str:
    found, types = cost(graph), graph.types()
    sizes = ", ".join(f"{name} = {size}" for name, size in found.sizes.items())
    rows = [(f"input {i.name}", _input(i)) for i in graph.inputs]
    rows += [(f"output {name}", _type(types[ref])) for name, ref in graph.outputs]
    rows += [(f"label {i.name}", _type(i.type)) for i in graph.labels]
    rows += [(f"loss {describe_losses(graph)}", "")] if graph.losses else []
    rows += [
        ("parameters", f"{found.params:,}"),
        ("weights", format_bytes(found.weight_bytes)),
        (
            "flops",
            f"{found.flops_formula}"
            + (f" = {format_count(found.flops)} at {sizes}" if sizes else ""),
        ),
        ("activations", f"{format_bytes(found.activation_bytes)} at their peak"),
    ]
    if found.cache_bytes:
        rows.append(
            ("cache", f"{found.cache_formula} bytes = {format_bytes(found.cache_bytes)}")
        )
    return "\n".join([graph.name, *records(rows)])


def _data(graph: Graph, args: argparse.Namespace) -> dict[str, Any]:
    found = facts(graph)
    if args.blocks:
        parts = breakdown(graph, args.blocks)
        found["blocks"] = [
            {"path": each.path, "params": each.params, "flops_formula": str(each.flops)}
            for each in parts
        ]
    return found


def _table(graph: Graph, levels: int) -> Iterator[str]:
    """The parameters and flops of each block, with their shares."""
    rows = breakdown_at(graph, graph.bounds, levels)
    names = [f"{'  ' * each.part.level}{shorten(each.part.name)}" for each in rows]
    width = max((len(name) for name in names), default=0)
    yield f"\n  {'block':<{width}}  {'parameters':>22}  {'flops':>18}"
    for name, each in zip(names, rows, strict=True):
        row = f"  {name:<{width}}  {each.part.params:>15,} {each.params_share:>6.1%}"
        yield f"{row}  {format_count(each.flops):>11} {each.flops_share:>6.1%}"


def _input(each: Input) -> str:
    """Formats the type of an input with its padding and its default."""
    text = _type(each.type)
    text += f", padded with {each.pad}" if each.pad is not None else ""
    return text + (f", {literal(each.default)} by default" if each.default is not None else "")


def _type(type: Type) -> str:
    """Formats a type with its causality."""
    text = str(replace(type, noncausal=frozenset()))
    causal = sorted(type.vars - type.noncausal) if type.dtype == "float" else []
    return text + (f", causal along {' and '.join(causal)}" if causal else "")
