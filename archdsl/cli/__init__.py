"""The command line: a file a command, and the only place that prints or exits.

Exit status: 0 fine, 1 the user's input is wrong (diagnostics on stderr), 2 wrong usage. What a
signal does is the process's matter: see `archdsl/__main__.py`.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module

import archdsl
from archdsl.cli.waiting import put, showing
from archdsl.diagnostics import ArchError, Diagnostic

COMMANDS = (
    "check",
    "explain",
    "fmt",
    "show",
    "expand",
    "diff",
    "run",
    "generate",
    "chat",
    "score",
    "translate",
    "classify",
    "embed",
    "transcribe",
    "import",
    "export",
    "bench",
    "doctor",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status."""
    return perform(arguments(sys.argv[1:] if argv is None else argv))


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    """What a command line says; what its command needs is imported by then."""
    return _parser(argv).parse_args(argv)


def perform(args: argparse.Namespace) -> int:
    """Runs the command of these arguments and returns its exit status."""
    # tinygrad lays plain numbers on its default device, to find which it opens every one.
    family, _, _ = (getattr(args, "device", None) or "").partition(":")
    if family.isalpha():
        os.environ.setdefault("DEV", family.upper())
    try:
        with showing(), warnings.catch_warnings():
            warnings.showwarning = _warned
            status: int = args.run(args)
        sys.stdout.flush()
        return status
    except ArchError as error:
        print(error, file=sys.stderr)
    except BrokenPipeError:
        raise
    except OSError as error:  # of the output; any other is told where it comes from
        problem = Diagnostic("file", f"the output cannot be written: {error.strerror}")
        print(problem.render(), file=sys.stderr)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left of it
    return 1


def _warned(message: Warning | str, *where: object, **more: object) -> None:
    put(str(message), file=sys.stderr)


def _parser(argv: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "archdsl", description="Attention architectures as short as the figures they come from."
    )
    parser.add_argument("--version", action="version", version=f"archdsl {archdsl.__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    # Only the command that is meant is imported: starting up is most of what `check` takes.
    for name in argv[:1] if set(argv[:1]) & set(COMMANDS) else COMMANDS:
        import_module(f"archdsl.cli.{name}").add(commands)
    return parser
