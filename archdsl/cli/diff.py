"""`archdsl diff`: the differences of two models, as features."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator

from archdsl.analysis import analyse
from archdsl.cli.common import Subparsers, add_command, add_json
from archdsl.describe.compare import difference, operators
from archdsl.describe.features import NONE, features
from archdsl.graph.nodes import Graph

_ENDS = ("input ", "output ")
_COLUMN = 40  # a longer left side is printed above the right side


def add(commands: Subparsers[argparse.ArgumentParser]) -> None:
    parser = add_command(
        commands,
        "diff",
        "A B",
        "archdsl diff transformer.arch vaswani2017.arch:big",
        "archdsl diff gpt2.arch:small llama.arch:smollm2_135M --json",
    )
    parser.add_argument("left", metavar="A", help="a spec FILE[:VARIANT]")
    parser.add_argument("right", metavar="B", help="a spec FILE[:VARIANT]")
    add_json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    left, right = (analyse(spec).graph for spec in (args.left, args.right))
    found = dict(_differences(left, right))
    if args.json:
        rows = {name: {"left": ours, "right": theirs} for name, (ours, theirs) in found.items()}
        data = {"left": args.left, "right": args.right, "differences": rows}
        print(json.dumps(data, indent=2))
    else:
        print("\n".join(_rows(found)) if found else "no differences")
    return 0


def _differences(left: Graph, right: Graph) -> Iterator[tuple[str, tuple[str, str]]]:
    """Yields each difference: its name, and its values in both models."""
    first = difference(left, right)
    if first is None:
        return
    ours, theirs = features(left), features(right)
    feature_differs = False
    for name in sorted(dict.fromkeys((*ours, *theirs)), key=_rank):
        # A missing input or output is a difference. Another feature that only one model
        # reports may still hold for the other.
        absent = NONE if _rank(name) < len(_ENDS) else None
        a, b = ours.get(name, absent), theirs.get(name, absent)
        if a and b and a != b:
            feature_differs = True
            yield name, (a, b)
    more, fewer = operators(left, right)
    if more or fewer:
        yield "operators", (f"{more or 'no'} more", f"{fewer or 'no'} more")
    if not feature_differs:
        yield "the graphs differ in", first


def _rank(name: str) -> int:
    """Sorts inputs and outputs before the other features."""
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
