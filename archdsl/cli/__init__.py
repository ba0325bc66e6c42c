"""The command line: a file a command, and the only place that prints or exits.

Exit status: 0 fine, 1 the user's input is wrong (diagnostics on stderr), 2 wrong usage,
130 interrupted.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Sequence
from importlib import import_module

import archdsl
from archdsl.diagnostics import ArchError

COMMANDS = (
    "check",
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
    argv = sys.argv[1:] if argv is None else argv
    args = _parser(argv).parse_args(argv)
    before, sys.unraisablehook = sys.unraisablehook, _interrupt_again
    try:
        status: int = args.run(args)
        sys.stdout.flush()
        return status
    except ArchError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read our output has gone; what is left of it goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    finally:
        sys.unraisablehook = before


def _interrupt_again(lost: sys.UnraisableHookArgs) -> None:
    """Python drops what is raised in a `__del__`, of which tinygrad calls many: a Ctrl-C that
    came there comes again a moment later."""
    if lost.exc_type is not KeyboardInterrupt:
        sys.__unraisablehook__(lost)
        return
    threading.Timer(0.01, os.kill, (os.getpid(), signal.SIGINT)).start()


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
