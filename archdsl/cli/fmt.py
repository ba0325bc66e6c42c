"""`archdsl fmt`: specs in their canonical form."""

from __future__ import annotations

import argparse
import difflib
import sys
from pathlib import Path

from archdsl.cli.common import Subparsers, command, say
from archdsl.diagnostics import ArchError
from archdsl.semantics.library import read_text_file
from archdsl.syntax.parser import parse
from archdsl.syntax.printer import format


def add(commands: Subparsers[argparse.ArgumentParser]) -> None:
    parser = command(
        commands,
        "fmt",
        "bring specs into their canonical form, comments kept",
        "archdsl fmt specs/*.arch --check",
    )
    parser.add_argument("files", metavar="FILE", nargs="+", help="specs; `-` is standard input")
    parser.add_argument(
        "--check", action="store_true", help="change nothing; 1 if anything would"
    )
    parser.add_argument("--diff", action="store_true", help="print what would change instead")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    status = 0
    for name in args.files:
        try:
            changed = _file(name, args)
        except ArchError as error:
            say(str(error))
            status = 1
            continue
        if changed and args.check:
            status = 1
    return status


def _file(name: str, args: argparse.Namespace) -> bool:
    """Whether a file's text is, or was, another than its canonical one."""
    text = sys.stdin.read() if name == "-" else read_text_file(Path(name))
    new = format(parse(text, name))
    if args.diff:
        old = text.splitlines(keepends=True)
        sys.stdout.writelines(
            difflib.unified_diff(old, new.splitlines(keepends=True), name, name)
        )
    elif args.check:
        if text != new:
            say(f"{name} is not formatted; `archdsl fmt {name}` does it")
    elif name == "-":
        sys.stdout.write(new)
    elif text != new:
        from archdsl.formats.atomic import replacing  # brings numpy, which few runs need

        with replacing(name) as temporary:
            temporary.write_text(new, encoding="utf-8")
        say(f"formatted {name}")
    return text != new
