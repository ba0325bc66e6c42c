"""`archdsl expand`: a model with everything implicit written out."""

from __future__ import annotations

import argparse

from archdsl.analysis import analyse
from archdsl.cli.common import Subparsers, add_spec, command, settings
from archdsl.describe.expand import expand
from archdsl.syntax.printer import format


def add(commands: Subparsers[argparse.ArgumentParser]) -> None:
    parser = command(
        commands,
        "expand",
        "print a model with all defaults, sizes and blocks written out",
        "archdsl expand gpt.arch --set depth=24",
    )
    add_spec(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    print(format(expand(analyse(args.spec, settings=settings(args)).graph)), end="")
    return 0
