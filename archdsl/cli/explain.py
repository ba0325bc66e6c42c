"""`archdsl explain`: the page of an error code."""

from __future__ import annotations

import argparse

from archdsl.cli.common import Subparsers, add_command
from archdsl.diagnostics import CODES, did_you_mean, fail, page


def add(commands: Subparsers[argparse.ArgumentParser]) -> None:
    parser = add_command(commands, "explain", "[CODE]", "archdsl explain not-causal")
    parser.add_argument(
        "code",
        metavar="CODE",
        nargs="?",
        help="the word in error[CODE] (default: list all codes)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    if args.code is None:
        width = max(map(len, CODES))
        print("\n".join(f"{code:<{width}}  {meaning}" for code, meaning in CODES.items()))
        return 0
    if args.code not in CODES:
        fail(
            "argument-value",
            f"there is no error code `{args.code}`",
            help=did_you_mean(args.code, CODES) or "`archdsl explain` lists the codes",
        )
    print(page(args.code).read_text(encoding="utf-8"), end="")
    return 0
