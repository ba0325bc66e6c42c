"""`archdsl explain`: the page of an error code."""

from __future__ import annotations

import argparse
import json

from archdsl.cli.common import Subparsers, add_command, add_json
from archdsl.cli.table import records
from archdsl.diagnostics import CODES, did_you_mean, fail, page


def add(commands: Subparsers[argparse.ArgumentParser]) -> None:
    parser = add_command(
        commands, "explain", "[CODE]", "archdsl explain not-causal", "archdsl explain"
    )
    parser.add_argument(
        "code",
        metavar="CODE",
        nargs="?",
        help="the word in error[CODE] (default: list all codes)",
    )
    add_json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    if args.code is None and args.json:
        print(json.dumps(CODES, indent=2))
        return 0
    if args.code is None:
        print("\n".join(records(CODES.items(), indent="")))
        return 0
    if args.code not in CODES:
        fail(
            "argument-value",
            f"there is no error code `{args.code}`",
            help=did_you_mean(args.code, CODES) or "`archdsl explain` lists the codes",
        )
    text = page(args.code).read_text(encoding="utf-8")
    if args.json:
        found = {"code": args.code, "meaning": CODES[args.code], "page": text}
        print(json.dumps(found, indent=2))
    else:
        print(text, end="")
    return 0
