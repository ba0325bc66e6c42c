"""The command line: one file per command, and the only place that prints or exits.

Exit status: 0 for success, 1 for an error in the user's input (diagnostics on stderr), 2 for
wrong usage. `archdsl/__main__.py` handles signals.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Iterable, Sequence
from importlib import import_module
from typing import NoReturn

import archdsl
from archdsl.cli.colour import print_diagnostics
from archdsl.cli.common import FIRST_STEPS, GROUPS
from archdsl.cli.output import OutputError, checked_output
from archdsl.cli.progress_line import print_text, show_progress
from archdsl.diagnostics import ArchError, Diagnostic, did_you_mean, escape, fail

COMMANDS = tuple(name for group in GROUPS.values() for name in group)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status."""
    return run_command(parse_arguments(sys.argv[1:] if argv is None else argv))


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Parses a command line. The module of its command is imported afterwards."""
    if not argv:
        print(_Parser().format_help(), end="", file=sys.stderr)
        sys.exit(2)
    return _build_parser(argv).parse_args(argv)


def run_command(args: argparse.Namespace) -> int:
    """Runs the command of parsed arguments and returns its exit status."""
    # tinygrad opens its default device for plain numbers; without DEV it tries every device.
    # It reads DEV when it is imported, so commands import tinygrad in `run`.
    family, _, _ = (getattr(args, "device", None) or "").partition(":")
    if family.isalpha():
        os.environ.setdefault("DEV", family.upper())
    try:
        with checked_output(), show_progress(), warnings.catch_warnings():
            warnings.showwarning = _print_warning
            if hasattr(args, "device"):
                _check_threads()
            status: int = args.run(args)
        return status
    except ArchError as error:
        print_diagnostics(str(error))
    except OutputError as error:
        _print_problem(f"cannot write the output: {error}")
        # Python flushes stdout again at exit; the rest of the output goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except BrokenPipeError:
        raise
    except OSError as error:  # of a file or folder that no reader expects to fail
        where = f"`{error.filename}`: " if error.filename else ""
        _print_problem(f"{where}{error.strerror or error}")
    return 1


def _check_threads() -> None:
    """Reports an environment variable that tinygrad reads when it is imported."""
    text = os.environ.get("NUM_CPU_THREADS")
    if text is not None and not (text.isascii() and text.isdecimal() and int(text) > 0):
        fail(
            "device",
            "the environment variable NUM_CPU_THREADS is not a number of threads",
            expected="a whole number above 0",
            found=f"`{text:.80}`",
            help="unset it: archdsl then uses all cores",
        )


def _print_problem(message: str) -> None:
    print_diagnostics(Diagnostic("file", message).render())


def _print_warning(message: Warning | str, *where: object, **more: object) -> None:
    print_text(str(message), file=sys.stderr)


class _PlainParser(argparse.ArgumentParser):
    """A parser whose messages show control characters of arguments escaped."""

    def error(self, message: str) -> NoReturn:
        super().error(escape(message))


class _Parser(_PlainParser):
    """The parser of `archdsl`; its help lists the commands by group."""

    def __init__(self) -> None:
        super().__init__("archdsl", usage="archdsl COMMAND [ARGUMENT ...]")
        self.add_argument(
            "--version", action="version", version=f"archdsl {archdsl.__version__}"
        )

    def format_help(self) -> str:
        width = max(map(len, COMMANDS))
        lines = [
            "archdsl compiles short specs of attention architectures to tinygrad models.",
            "",
            f"usage: {self.usage}",
            "",
            "first steps, with a spec of the library:",
            *(f"  {command}" for command in FIRST_STEPS),
        ]
        for title, group in GROUPS.items():
            lines += ["", f"{title}:"]
            lines += [f"  {name:<{width}}  {summary}" for name, summary in group.items()]
        lines += ["", "`archdsl COMMAND --help` describes a command with an example.", ""]
        return "\n".join(lines)


def full_parser() -> argparse.ArgumentParser:
    """Returns the parser of all commands."""
    return _with_commands(_Parser(), COMMANDS)


def _build_parser(argv: Sequence[str]) -> argparse.ArgumentParser:
    parser, name = _Parser(), argv[0]
    if name not in COMMANDS and not name.startswith("-"):
        near = did_you_mean(name, COMMANDS) or "`archdsl` lists the commands"
        parser.error(f"there is no command `{name}`; {near}")
    # The other commands are not imported: imports are most of the time of `check`.
    return _with_commands(parser, [name] if name in COMMANDS else [])


def _with_commands(parser: _Parser, names: Iterable[str]) -> _Parser:
    commands = parser.add_subparsers(
        prog="archdsl", metavar="COMMAND", required=True, parser_class=_PlainParser
    )
    for name in names:
        import_module(f"archdsl.cli.{name}").add(commands)
    return parser
