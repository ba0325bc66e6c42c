"""`archdsl diff`: the differences of two models, as features."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator

from archdsl.analysis import analyse
from archdsl.cli.common import Subparsers, add_command, add_json
from archdsl.cli.table import WIDTH, wrap
from archdsl.describe.differences import differences

_COLUMN = 32  # a longer left side is printed above the right side


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
    found = differences(left, right)
    if args.json:
        rows = {name: {"left": ours, "right": theirs} for name, (ours, theirs) in found.items()}
        data = {"left": args.left, "right": args.right, "differences": rows}
        print(json.dumps(data, indent=2))
    else:
        print("\n".join(_rows(found)) if found else "no differences")
    return 0


def _rows(found: dict[str, tuple[str, str]]) -> Iterator[str]:
    label = max(map(len, found))
    column = max((len(ours) for ours, _ in found.values() if len(ours) <= _COLUMN), default=0)
    for name, (ours, theirs) in found.items():
        start = f"  {name:<{label}}  "
        line = f"{start}{ours:<{column}} -> {theirs}"
        if len(ours) <= column and len(line) <= WIDTH:
            yield line
        else:
            yield from wrap(ours, start)
            yield from wrap(theirs, f"{' ' * len(start)}-> ")
