"""`archdsl lsp`: the language server for editors."""

from __future__ import annotations

import argparse

from archdsl.cli.common import Subparsers, add_command
from archdsl.diagnostics import fail


def add(commands: Subparsers[argparse.ArgumentParser]) -> None:
    parser = add_command(commands, "lsp", "", "archdsl lsp")
    # Editors say how they talk to a server; there is no other way.
    parser.add_argument(
        "--stdio", action="store_true", help="talk on stdin and stdout (always)"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    try:
        from archdsl.editor.server import create_server
    except ModuleNotFoundError as error:
        if error.name not in ("pygls", "lsprotocol"):
            raise
        fail(
            "file",
            "the language server needs the package pygls",
            help="pip install 'archdsl[editor]'",
            cause=error,
        )
    create_server().start_io()
    return 0
