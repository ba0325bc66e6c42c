"""`archdsl mcp`: a server of the Model Context Protocol on stdin and stdout."""

from __future__ import annotations

import argparse
import signal

from archdsl.cli.common import Subparsers, add_command
from archdsl.diagnostics import fail


def add(commands: Subparsers[argparse.ArgumentParser]) -> None:
    parser = add_command(commands, "mcp", "", "archdsl mcp")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    try:
        from archdsl.agents.server import server
    except ModuleNotFoundError as error:
        if error.name != "mcp":
            raise
        fail("file", "`archdsl mcp` needs mcp", help="pip install 'archdsl[mcp]'")
    # The thread that reads stdin would delay Ctrl-C until its next line.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    server().run()
    return 0
