"""The questions of the page in a browser, as text: JavaScript calls this module by Pyodide."""

from __future__ import annotations

import json
from collections.abc import Iterator

from archdsl.diagnostics import ArchError
from archdsl.play.inspect import Inspector, read_request

_inspector = Inspector()


def answers(request: str) -> Iterator[str]:
    """The answers to a question, as JSON: see `inspect.py`. `refused` says why not."""
    try:
        yield from map(json.dumps, _inspector.answers(read_request(json.loads(request))))
    except ArchError as error:
        yield json.dumps({"refused": [each.render() for each in error.diagnostics]})
