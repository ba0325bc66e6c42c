"""Colours of diagnostics, where a terminal shows them.

The environment variables are those of most programs: NO_COLOR (https://no-color.org) turns
colours off, FORCE_COLOR turns them on without a terminal, and TERM=dumb has none.
"""

from __future__ import annotations

import os
import re
import sys
from typing import TextIO

_RESET = "\x1b[0m"
_STYLES = {
    "where": "\x1b[1m",  # bold
    "error": "\x1b[1;31m",  # red
    "message": "\x1b[1m",
    "gutter": "\x1b[34m",  # blue
    "mistake": "\x1b[1;31m",
    "other": "\x1b[1;34m",
    "place": "\x1b[34m",
    "label": "\x1b[36m",  # cyan
    "help": "\x1b[32m",  # green
}
# The lines of `Diagnostic.render`. A line of a spec always follows a gutter.
_LINES = re.compile(
    r"^(?P<where>\S.*?:\d+:\d+: )?(?P<error>error\[[a-z-]+\]:)(?P<message>.*)$"
    r"|^(?P<gutter> *\d* \|)(?:\s+(?:(?P<mistake>\^+)|(?P<other>-+))$)?"
    r"|^(?P<place> --> .*)$"
    r"|^  = (?:(?P<help>help:.*)|(?P<label>\w+:))",
    re.MULTILINE,
)


def print_diagnostics(text: str) -> None:
    """Prints rendered diagnostics on stderr, with colours if it shows them."""
    print(coloured(text, sys.stderr), file=sys.stderr)


def coloured(text: str, stream: TextIO) -> str:
    """Returns rendered diagnostics with colours if the stream shows them."""
    return _LINES.sub(_colour, text) if shows_colours(stream) else text


def shows_colours(stream: TextIO) -> bool:
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def _colour(found: re.Match[str]) -> str:
    text, start = found[0], found.start()
    for name in sorted(_STYLES, key=found.start, reverse=True):
        if found[name] is not None:
            before, after = found.start(name) - start, found.end(name) - start
            text = f"{text[:before]}{_STYLES[name]}{text[before:after]}{_RESET}{text[after:]}"
    return text
