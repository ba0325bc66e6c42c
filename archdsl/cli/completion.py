"""`archdsl completion`: a script that lets a shell complete commands, options and files."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator

from archdsl.cli.common import Subparsers, add_command
from archdsl.diagnostics import fail

SHELLS = ("bash", "zsh", "fish")
# Metavars of arguments that are paths: FILE[:VARIANT], AUDIO.wav, and the two specs of `diff`.
_PATHS = re.compile(r"(FILE|PATH|CHECKPOINT|ADAPTER|IMAGE|AUDIO|A|B)\b")
_FOLDERS = re.compile(r"FOLDER\b")


def add(commands: Subparsers[argparse.ArgumentParser]) -> None:
    parser = add_command(
        commands,
        "completion",
        "SHELL",
        "archdsl completion bash > ~/.local/share/bash-completion/completions/archdsl",
        "archdsl completion zsh > ~/.zfunc/_archdsl    # a folder of $fpath",
        "archdsl completion fish > ~/.config/fish/completions/archdsl.fish",
    )
    parser.add_argument("shell", metavar="SHELL", choices=SHELLS, help=", ".join(SHELLS))
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from archdsl.cli import full_parser  # which imports this file

    try:
        import shtab
    except ModuleNotFoundError:
        help = "pip install 'archdsl[completion]'"
        fail("file", "`archdsl completion` needs shtab", help=help)
    parser = full_parser()
    for action in _actions(parser):
        metavar = action.metavar if isinstance(action.metavar, str) else ""
        if _FOLDERS.match(metavar):
            action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]  # shtab reads it
        elif _PATHS.match(metavar):
            action.complete = shtab.FILE  # type: ignore[attr-defined]
    print(shtab.complete(parser, args.shell))
    return 0


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in parser._actions:  # argparse lists them nowhere else
        yield action
        if isinstance(action, Subparsers):
            for each in action.choices.values():
                yield from _actions(each)
