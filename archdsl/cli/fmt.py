"""`archdsl fmt`: the formatter of specs."""

from __future__ import annotations

import argparse
import difflib
import sys
from pathlib import Path

from archdsl.cli.common import Subparsers, add_command, print_note
from archdsl.diagnostics import ArchError
from archdsl.semantics.library import read_text_file
from archdsl.syntax.parser import parse
from archdsl.syntax.printer import format


def add(commands: Subparsers[argparse.ArgumentParser]) -> None:
    parser = add_command(
        commands,
        "fmt",
        "FILE ...",
        "archdsl fmt my.arch",
        "archdsl fmt specs/*.arch --check",
        exit_status="1 for a syntax error, or with --check if a file is not formatted",
    )
    parser.add_argument(
        "files", metavar="FILE", nargs="+", help="specs; `-` formats stdin to stdout"
    )
    parser.add_argument("--check", action="store_true", help="report files, do not write them")
    parser.add_argument(
        "--diff", action="store_true", help="print the changes as a diff, do not write them"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    status = 0
    for name in args.files:
        try:
            changed = _format_file(name, args)
        except ArchError as error:
            print_note(str(error))
            status = 1
            continue
        if changed and args.check:
            status = 1
    return status


def _format_file(name: str, args: argparse.Namespace) -> bool:
    """Formats a file; returns whether its text was not formatted."""
    text = sys.stdin.read() if name == "-" else read_text_file(Path(name))
    new = format(parse(text, name))
    if args.diff:
        old = text.splitlines(keepends=True)
        sys.stdout.writelines(
            difflib.unified_diff(old, new.splitlines(keepends=True), name, name)
        )
    elif args.check:
        if text != new:
            print_note(f"{name} is not formatted; run `archdsl fmt {name}`")
    elif name == "-":
        sys.stdout.write(new)
    elif text != new:
        from archdsl.formats.atomic import replacing  # imports numpy; most runs do not need it

        with replacing(name) as temporary:
            temporary.write_text(new, encoding="utf-8")
        print_note(f"formatted {name}")
    return text != new
