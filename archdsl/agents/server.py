"""The server of `archdsl mcp`: the tools, over the Model Context Protocol.

A diagnostic reaches the client as the error of the call, with the lines of its spec.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any

import archdsl
from archdsl.agents.tools import TOOLS
from archdsl.diagnostics import ArchError

if TYPE_CHECKING:
    from mcp.server import MCPServer

INSTRUCTIONS = """\
archdsl is a language for attention architectures. A spec describes a model; the compiler proves
shapes, masks and causality, and counts its cost. First read a spec of the library that is like
yours (search, read). Then check yours: a wrong one is refused: line and likely fix.\
"""


def server() -> MCPServer:
    """Returns a server with a tool for each function of `tools.TOOLS`."""
    from mcp.server import MCPServer

    version = archdsl.__version__
    made = MCPServer("archdsl", instructions=INSTRUCTIONS, version=version, log_level="WARNING")
    for tool in TOOLS:
        made.add_tool(_refusing(tool))
    return made


def _refusing(tool: Callable[..., Any]) -> Callable[..., Any]:
    from mcp.server.mcpserver.exceptions import ToolError

    @wraps(tool)
    def answer(*args: Any, **named: Any) -> Any:
        try:
            return tool(*args, **named)
        except ArchError as error:
            raise ToolError(str(error)) from None

    return answer
