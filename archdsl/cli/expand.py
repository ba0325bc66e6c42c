"""`archdsl expand`: a model with all defaults, sizes and blocks written out."""

from __future__ import annotations

import argparse

from archdsl.analysis import analyse
from archdsl.cli.common import Subparsers, add_command, add_spec, parse_settings
from archdsl.describe.expand import expand
from archdsl.syntax.printer import format


def add(commands: Subparsers[argparse.ArgumentParser]) -> None:
    parser = add_command(
        commands, "expand", "FILE[:VARIANT]", "archdsl expand gpt.arch --set depth=24"
    )
    add_spec(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    print(format(expand(analyse(args.spec, settings=parse_settings(args)).graph)), end="")
    return 0
