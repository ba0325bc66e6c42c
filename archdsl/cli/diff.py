"""`archdsl diff`: what differs between two models, in the field's words."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator

from archdsl.analysis import analyse
from archdsl.cli.common import Subparsers, command
from archdsl.describe.compare import difference, operators
from archdsl.describe.features import NONE, features
from archdsl.graph.nodes import Graph

_ENDS = ("input ", "output ")
_COLUMN = 40  # a longer left side stands above the right one


def add(commands: Subparsers[argparse.ArgumentParser]) -> None:
    parser = command(
        commands,
        "diff",
        "tell what differs between two models, in the field's words",
        "archdsl diff transformer.arch vaswani2017.arch:big",
    )
    parser.add_argument("left", metavar="A", help="a spec, FILE[:VARIANT]")
    parser.add_argument("right", metavar="B", help="another")
    parser.add_argument("--json", action="store_true", help="the result as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    left, right = (analyse(spec).graph for spec in (args.left, args.right))
    found = dict(_differences(left, right))
    if args.json:
        rows = {name: {"left": ours, "right": theirs} for name, (ours, theirs) in found.items()}
        data = {"left": args.left, "right": args.right, "differences": rows}
        print(json.dumps(data, indent=2))
    else:
        print("\n".join(_rows(found)) if found else "no difference")
    return 0


def _differences(left: Graph, right: Graph) -> Iterator[tuple[str, tuple[str, str]]]:
    """What differs, by name, as each of two models has it."""
    first = difference(left, right)
    if first is None:
        return
    ours, theirs = features(left), features(right)
    told = False
    for name in sorted(dict.fromkeys((*ours, *theirs)), key=_rank):
        # Any other feature that is told of one alone may still be so of the other.
        absent = NONE if _rank(name) < len(_ENDS) else None
        a, b = ours.get(name, absent), theirs.get(name, absent)
        if a and b and a != b:
            told = True
            yield name, (a, b)
    more, fewer = operators(left, right)
    if more or fewer:
        yield "operators", (f"{more or 'no'} more", f"{fewer or 'no'} more")
    if not told:
        yield "the graphs differ in", first


def _rank(name: str) -> int:
    """What comes in and goes out stands above all else, whichever model has it."""
    return next((i for i, end in enumerate(_ENDS) if name.startswith(end)), len(_ENDS))


def _rows(found: dict[str, tuple[str, str]]) -> Iterator[str]:
    label = max(map(len, found))
    column = max((len(ours) for ours, _ in found.values() if len(ours) <= _COLUMN), default=0)
    for name, (ours, theirs) in found.items():
        if len(ours) <= _COLUMN:
            yield f"  {name:<{label}}  {ours:<{column}} -> {theirs}"
        else:
            yield f"  {name:<{label}}  {ours}"
            yield f"  {'':<{label}}  {'':<{column}} -> {theirs}"
